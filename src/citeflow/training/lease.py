"""The attempts at a run, one file each: who may write into its folder, and whether it gets anywhere.

Every time that the workers start, rank 0 claims the next number. The highest one owns the run, so that workers which
were cut off and come back find out before their next write. Attempts that begin no later than those before are counted.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from citeflow import files
from citeflow.errors import CorruptError, TrainingError

MOST_WITHOUT_PROGRESS = 3
"""Attempts of one launch that may begin at the same step; a fault that comes again will come once more."""

LOOK_AGAIN_S = 0.2
"""A shared disk may show for some seconds what was there before another claimed."""

NO_PROGRESS = f"{MOST_WITHOUT_PROGRESS} attempts ended without progress beyond step"
_NAME = re.compile(r"(\d{5})\.json")


class LeaseLost(Exception):  # noqa: N818 - it is no error, and nobody is to be told but the log
    """Another attempt owns the run, which this one may no longer write to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One start of the workers, as rank 0 knows it."""

    folder: Path
    number: int

    def assert_held(self) -> None:
        """Find out, before something is written, whether the run still belongs to this attempt.

        Raises:
            TakenOver: it does not.
        """
        newest = max(_numbers(self.folder), default=0)
        if newest < self.number:
            raise LeaseLost(f"the files of attempt {self.number} are gone")
        if newest > self.number:
            raise LeaseLost(f"attempt {newest} has taken over from attempt {self.number}")


def claim(folder: Path, *, launch: str, step: int) -> Lease:
    """Begin the next attempt.

    Args:
        folder: of the attempts of the run.
        launch: names what started the workers; they may start often within a launch.
        step: where this attempt begins.

    Raises:
        TrainingError: the last attempts of this launch began no earlier.
        TakenOver: another launch has taken over from this one.
    """
    while True:
        numbers = _numbers(folder)
        earlier = [_read(folder / _name(number)) for number in numbers]
        _require_owner(earlier, launch)
        _require_progress([each["step"] for each in earlier if each["launch"] == launch], step)
        number = numbers[-1] + 1 if numbers else 1
        content = {"launch": launch, "step": step, "wall_time": time.time()}
        if files.create_json(folder / _name(number), content):
            return Lease(folder=folder, number=number)
        time.sleep(LOOK_AGAIN_S)


def _read(path: Path) -> files.Json:
    content: files.Json = files.read_json(path)
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("step"), int)
        or "launch" not in content
    ):
        raise CorruptError(
            "not an attempt of citeflow", path, hint="delete the folder of the attempts"
        )
    return content


def _require_owner(earlier: list[files.Json], launch: str) -> None:
    launches = [each["launch"] for each in earlier]
    if launch in launches and launches[-1] != launch:
        raise LeaseLost(f"attempt {len(launches)} belongs to a later launch")


def _require_progress(steps: list[int], step: int) -> None:
    last = steps[-MOST_WITHOUT_PROGRESS:]
    if len(last) == MOST_WITHOUT_PROGRESS and last[0] >= step:
        hint = "what ended them is in the log above; mend it, and run it again"
        raise TrainingError(NO_PROGRESS, step, hint=hint)


def _numbers(folder: Path) -> list[int]:
    return sorted(int(match[1]) for match in map(_NAME.fullmatch, files.names_in(folder)) if match)


def _name(number: int) -> str:
    return f"{number:05d}.json"
