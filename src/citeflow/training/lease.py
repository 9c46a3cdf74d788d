"""The lease on a run: a fencing token that decides who may write into the run's folder.

Every time the workers start, rank 0 acquires the next number, one file each. The highest number
holds the run, so workers that were cut off and come back find out before their next write. The
files also count the starts that made no progress.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

from citeflow import files
from citeflow.errors import CorruptError, TrainingError
from citeflow.utils import records
from citeflow.utils.records import Record

MAX_STARTS_WITHOUT_PROGRESS = 3
"""Starts of one launch that may begin at the same step; a fault that came thrice comes again."""

RETRY_S = 0.2
"""A shared disk may hide for some seconds that another start took the number."""

NO_PROGRESS = f"{MAX_STARTS_WITHOUT_PROGRESS} attempts ended without progress beyond step"
_NAME = re.compile(r"(\d{5})\.json")


class LeaseLost(SystemExit):
    """Another start of the workers holds the run, which this one may no longer write to.

    A SystemExit, as no library on the way may take it for a failure of its own: this worker has
    nothing left to do, and nothing to report but a line in its log.
    """


class LeaseRecord(Record):
    """Content of a lease's file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    launch: str
    """Token of the command that started the workers."""

    step: int
    """Step that this start of the workers resumed from."""

    wall_time: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A number that was acquired."""

    folder: Path
    number: int

    def assert_held(self) -> None:
        """Check, before each write, that this is still the highest number.

        Raises:
            LeaseLost: it is not.
        """
        newest = max(_numbers(self.folder), default=0)
        if newest < self.number:
            raise LeaseLost(f"the files of attempt {self.number} are gone")
        if newest > self.number:
            raise LeaseLost(f"attempt {newest} has taken over from attempt {self.number}")


def acquire(folder: Path, *, launch: str, step: int) -> Lease:
    """Take the next number.

    Args:
        folder: of the leases of the run.
        launch: token of the command that started the workers; torchrun may start them often.
        step: step that the workers resume from.

    Raises:
        TrainingError: the last starts of this launch resumed from no earlier step.
        LeaseLost: another launch has taken over from this one.
    """
    while True:
        numbers = _numbers(folder)
        earlier = [_read(folder / _name(number)) for number in numbers]
        _check_owner(earlier, launch)
        _check_progress([each.step for each in earlier if each.launch == launch], step)
        number = numbers[-1] + 1 if numbers else 1
        record = LeaseRecord(launch=launch, step=step, wall_time=time.time())
        if files.create_json(folder / _name(number), record.model_dump()):
            return Lease(folder=folder, number=number)
        time.sleep(RETRY_S)


def _read(path: Path) -> LeaseRecord:
    hint = "delete the folder of the attempts"
    return records.load(
        LeaseRecord, files.read_json(path), name=str(path), error=CorruptError, hint=hint
    )


def _check_owner(earlier: list[LeaseRecord], launch: str) -> None:
    launches = [each.launch for each in earlier]
    if launch in launches and launches[-1] != launch:
        raise LeaseLost(f"attempt {len(launches)} belongs to a later launch")


def _check_progress(steps: list[int], step: int) -> None:
    last = steps[-MAX_STARTS_WITHOUT_PROGRESS:]
    if len(last) == MAX_STARTS_WITHOUT_PROGRESS and last[0] >= step:
        hint = "what ended them is in the log above; mend it, and run it again"
        raise TrainingError(NO_PROGRESS, step, hint=hint)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, files.names_in(folder)) if match)


def _name(number: int) -> str:
    return f"{number:05d}.json"
