"""Repeat a call that failed for a reason that may pass, with growing pauses."""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from citeflow.utils.logging import log

Result = TypeVar("Result")


class TransientError(Exception):
    """A failure that may pass, such as a server that restarts: `retry` repeats the call."""

    def __init__(self, reason: object, *, wait_s: float = 0.0) -> None:
        """Describe the failure.

        Args:
            reason: one line for the log.
            wait_s: shortest pause before the next attempt, as a server's Retry-After asks for.
        """
        super().__init__(str(reason))
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Pauses between attempts, each twice the one before, and the end of the attempts."""

    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    patience_s: float = math.inf
    """Time for all attempts and pauses; no attempt is started after it."""

    attempts: float = math.inf
    """Attempts in a row without progress."""

    jitter: float = 0.0
    """Share of a pause that is left to chance, so that many workers do not return at once."""

    def pause_s(self, failures: int, wait_s: float = 0.0) -> float:
        """Return the pause after so many failures in a row: at least `wait_s`, unless too long."""
        doubled = self.first_pause_s * 2.0 ** min(failures - 1, 60)
        pause = min(max(doubled, wait_s), self.longest_pause_s)
        return max(min(wait_s, pause), pause * random.uniform(1.0 - self.jitter, 1.0))


def retry(
    call: Callable[[], Result],
    backoff: Backoff,
    *,
    subject: str,
    has_progressed: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Call until it succeeds or the backoff is used up.

    Args:
        call: raises TransientError for a failure that may pass. Other errors are not caught.
        backoff: pauses and limits.
        subject: who waits, first word of the log line, such as `kfp`.
        has_progressed: whether the failed attempt got further than the one before; if so,
            failures are counted from one.
        sleep: waits for so many seconds.

    Raises:
        TransientError: that of the last attempt.
    """
    started = time.monotonic()
    failures = 0
    while True:
        try:
            return call()
        except TransientError as error:
            failures = 1 if has_progressed() else failures + 1
            pause_s = backoff.pause_s(failures, error.wait_s)
            is_late = time.monotonic() - started + pause_s > backoff.patience_s
            if failures >= backoff.attempts or is_late:
                raise
            log(subject, "waiting", reason=error, seconds=pause_s, failures=failures)
        sleep(pause_s)
