"""Goodput: the share of a training's wall time that went into steps which are in the model.

Google calls it ML goodput, ByteRobust the effective training time ratio. The clock is rank 0's, or
that of the rank whose state is resumed from. It runs from the launch to the model's last figure,
over all starts of the workers, and each moment has one cause:

- `steps`: optimizer steps that count. What a rank waits for others within a step is in it.
- `start`: from the launch to the first step; on a cluster, the time until its pods run is in it.
- `restart`: from the last sign of life of an attempt to the first step of the next.
- `redone`: from the state that was resumed from to the last sign of life: steps that were lost.
- `checkpoint`: the steps stand still for a save.
- `validation`: the score on the validation split; after the last step also the calibration.
- `waiting`: the rank waits for its batch.

It says nothing of how well a step uses the machine. A run that was stopped and is launched again
goes on with a new clock, which adds to the old one: the time between them is nobody's loss.

The account is in the `Progress`, and so in every checkpoint. Of a process that was killed it says
nothing behind its last state; the last sign of life is then what TensorBoard's curves have, a
record a second. They decide between `redone` and `restart`, not how much was lost.
"""

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from citeflow.errors import CorruptError, NotFoundError
from citeflow.paths import RunPaths
from citeflow.reporting import event_files
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group
from citeflow.training.launch import read_job

Cause = Literal["steps", "start", "restart", "redone", "checkpoint", "validation", "waiting"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

HEAD_BYTES = 256
"""Of an event file, in which its first record is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """An attempt that has come to its steps; both times are in seconds since 1970."""

    began: float
    last_sign: float


class Goodput:
    """Books every moment of this process, as it passes, in the account of its progress."""

    def __init__(
        self, progress: Progress, cause: Cause, *, clock: Callable[[], float] | None = None
    ) -> None:
        """Go on with an account.

        Args:
            progress: has the account, which is open until `spent_at`.
            cause: of the time from there on.
            clock: returns seconds since 1970.
        """
        self._progress = progress
        self._cause = cause
        self._clock = clock or steady_clock()

    def switch(self, cause: Cause) -> None:
        """Book the time until now, and what follows under another cause."""
        progress = self._progress
        passed = max(0.0, self._clock() - progress.spent_at)
        progress.spent[self._cause] += passed
        progress.spent_at += passed
        self._cause = cause

    @contextlib.contextmanager
    def measure(self, cause: Cause) -> Iterator[None]:
        """Book the time of a block under a cause of its own.

        That of a block which fails is left to the next attempt, which has lost it.
        """
        before = self._cause
        self.switch(cause)
        yield
        self.switch(before)


def resume(progress: Progress, run: RunPaths, group: Group) -> Goodput:
    """Book on every rank what was lost since the state of a progress, as rank 0 finds it."""
    now = time.time()

    def book() -> tuple[dict[str, float], Cause]:
        launched_at = _launched_at(run) or now
        attempts = read_attempts(run.logs, since=progress.spent_at)
        return book_lost(progress, launched_at=launched_at, attempts=attempts, now=now)

    progress.spent, cause = group.broadcast_object(book)
    progress.spent_at = now
    return Goodput(progress, cause)


def book_lost(
    progress: Progress, *, launched_at: float, attempts: Sequence[Attempt], now: float
) -> tuple[dict[str, float], Cause]:
    """Return the account of a progress until now, and the cause of what follows.

    Args:
        progress: as it was resumed; `spent_at` is 0 at a fresh start.
        launched_at: when the launch of this process began, in seconds since 1970.
        attempts: those that were alive after the state was saved, in their order.
        now: seconds since 1970.
    """
    spent: dict[str, float] = {each: progress.spent.get(each, 0.0) for each in CAUSES}
    since = progress.spent_at
    at = max(since, launched_at)
    cause: Cause = "restart" if since > launched_at else "start"
    for attempt in attempts:
        last_sign = min(attempt.last_sign, now)
        if last_sign < launched_at:
            # Of an earlier launch, whose steps were lost with it; a fresh start has lost none.
            began = max(attempt.began, since) if since else last_sign
            spent["redone"] += max(0.0, last_sign - began)
        elif last_sign > at:
            began = min(max(attempt.began, at), last_sign)
            spent[cause] += began - at
            spent["redone"] += last_sign - began
            at, cause = last_sign, "restart"
    spent[cause] += max(0.0, now - at)
    return spent, cause


def read_attempts(logs: Path, *, since: float) -> list[Attempt]:
    """Read off the curves of a run which attempts were alive after a moment; none where it fails.

    Args:
        logs: folder of the run's event files, of which every attempt begins one.
        since: seconds since 1970.
    """
    attempts = []
    with contextlib.suppress(OSError):
        for path in event_files.training_files(logs):
            last_sign = path.stat().st_mtime
            if last_sign > since:
                with path.open("rb") as file:
                    events, _ = event_files.read_new(io.BytesIO(file.read(HEAD_BYTES)), 0)
                began = events[0].wall_time if events else last_sign
                attempts.append(Attempt(began=began, last_sign=last_sign))
    return attempts


def ratio(spent: Mapping[str, float]) -> float:
    """Return the goodput of an account, 0..1."""
    return spent["steps"] / max(sum(spent.values()), 1e-9)


def losses(spent: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of an account that went into no step, by cause."""
    return {cause: seconds for cause, seconds in spent.items() if cause != "steps"}


def steady_clock() -> Callable[[], float]:
    """Return a clock of seconds since 1970 that goes on evenly when the system's is corrected."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def _launched_at(run: RunPaths) -> float:
    """Return when the launch of a run began, 0 where nothing says it."""
    with contextlib.suppress(NotFoundError, CorruptError, OSError):
        return read_job(run.job_file).launched_at
    return 0.0
