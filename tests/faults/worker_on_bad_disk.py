"""The disturbed worker, on a volume that is read-only, full or slow while a file says so.

Rank 0 of the first attempt makes the file at one step, and removes it at another.
"""

import functools
import io
import json
import os
import time
from pathlib import Path

from citeflow.training.trainer import Trainer
from faults import disturbed_worker

VARIABLE = "WORKER_ON_BAD_DISK"
CHANGES = ("mkdir", "replace", "link", "unlink", "rmdir", "chmod")
WRITES = os.O_WRONLY | os.O_RDWR


class Volume:
    """Folders, and a file that says what is wrong with them; without it nothing is."""

    def __init__(self, file, folders, trouble, steps):
        self.file = Path(file)
        self.folders = tuple(map(Path, folders))
        self.planned = trouble
        self.begin, self.end = steps

    def keep(self, trainer):
        """Begin or end the trouble at its steps."""
        if not trainer.group.is_main or trainer.lease.number > 1:
            return
        if trainer.progress.step == self.begin:
            self.file.write_text(json.dumps(self.planned))
        elif trainer.progress.step == self.end:
            self.file.unlink()

    def trouble(self):
        """Return the number of the error that writes meet, and the seconds of each fsync."""
        try:
            descriptor = os_open(self.file, os.O_RDONLY)
        except FileNotFoundError:
            return {"number": 0, "seconds": 0}
        try:
            return json.loads(os.read(descriptor, 1_000))
        finally:
            os.close(descriptor)

    def refuse(self, path):
        """Refuse to change what is below the folders."""
        if isinstance(path, int) or not any(
            map(Path(os.fsdecode(path)).is_relative_to, self.folders)
        ):
            return
        if number := self.trouble()["number"]:
            raise OSError(number, os.strerror(number), str(path))

    def changing(self, real):
        @functools.wraps(real)
        def call(path, *args, **kwargs):
            self.refuse(path)
            return real(path, *args, **kwargs)

        return call

    def open(self, path, flags, *args, **kwargs):
        if flags & WRITES:
            self.refuse(path)
        return os_open(path, flags, *args, **kwargs)

    def io_open(self, path, mode="r", *args, **kwargs):
        if mode[0] in "wax":
            self.refuse(path)
        return io_open(path, mode, *args, **kwargs)

    def fsync(self, descriptor):
        time.sleep(self.trouble()["seconds"])
        os_fsync(descriptor)


os_open, io_open, os_fsync = os.open, io.open, os.fsync
preload = disturbed_worker.preload


def main():
    volume = Volume(**json.loads(os.environ[VARIABLE]))
    for name in CHANGES:
        setattr(os, name, volume.changing(getattr(os, name)))
    os.open, io.open, os.fsync = volume.open, volume.io_open, volume.fsync
    take_step = Trainer.train_step

    def train_step(trainer, *args):
        volume.keep(trainer)
        return take_step(trainer, *args)

    Trainer.train_step = train_step
    disturbed_worker.main()


if __name__ == "__main__":
    main()
