"""A process of its own for one attempt of a run, which no death of a server ends or repeats.

`python -m citeflow.platform.backends.detached FOLDER ATTEMPT CORES COMMAND...` becomes the command.
Before that it takes a lock that it holds as long as it lives, and writes the attempt down; where
another has done so, it ends. So an attempt takes place once, however often it is started.
"""

import fcntl
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from citeflow import files
from citeflow.errors import NotFoundError
from citeflow.utils import records
from citeflow.utils.records import Record

MODULE = "citeflow.platform.backends.detached"
PROCESS = "process.json"
LOCK = "process.lock"

WAIT_S = 2.0
PAUSE_S = 0.01


class Attempt(Record):
    """The newest attempt of a run on this machine."""

    attempt: int
    pid: int
    started: float
    """Seconds since 1970."""

    cores: tuple[int, ...]
    """Numbers of the cores that it may use."""


def read_attempt(folder: Path) -> Attempt | None:
    """Return the newest attempt of a run; None where it was never started."""
    try:
        return records.load(Attempt, files.read_json(folder / PROCESS))
    except NotFoundError:
        return None


def is_alive(folder: Path) -> bool:
    """Tell whether an attempt of a run is at work."""
    return files.is_held(folder / LOCK)


def main(argv: Sequence[str]) -> int:
    """Become the command, or end where there is nothing to do."""
    folder, attempt, cores = Path(argv[0]), int(argv[1]), argv[2]
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if not _take(lock):
        return 0
    before = read_attempt(folder)
    if before is not None and before.attempt >= attempt:
        return 0
    chosen = tuple(int(core) for core in cores.split(",") if core)
    if chosen:
        os.sched_setaffinity(0, chosen)
    this = Attempt(attempt=attempt, pid=os.getpid(), started=time.time(), cores=chosen)
    files.write_json(folder / PROCESS, this.model_dump(mode="json"))
    os.set_inheritable(lock, True)  # the command holds it; what that starts does not inherit it
    os.execv(argv[3], list(argv[3:]))


def _take(lock: int) -> bool:
    """Take a lock; who only looks whether it is held has it for a moment."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
