"""Lines that say how far long work is, from a thread of their own: no work waits for them."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from citeflow.utils.logging import log

LINE_EVERY_S = 60.0
"""Seconds between two lines of a log."""

LINE_EVERY_ON_TERMINAL_S = 10.0

LINE_EVERY_VARIABLE = "CITEFLOW_LINE_EVERY_S"
"""Environment variable with another number, where somebody watches a log from afar."""

JOIN_S = 5.0
"""Longest wait for a call that is under way at the end of its block."""


@dataclass
class Counter:
    """The part of some work that is done; the work itself adds to it."""

    done: int = 0


def line_interval_s() -> float:
    """Return the seconds between two lines, which a terminal gets more often."""
    with contextlib.suppress(KeyError, ValueError):
        return max(0.1, float(os.environ[LINE_EVERY_VARIABLE]))
    return LINE_EVERY_ON_TERMINAL_S if sys.stderr.isatty() else LINE_EVERY_S


@contextlib.contextmanager
def repeating(
    call: Callable[[], None], interval_s: float, *, at_end: bool = False
) -> Iterator[None]:
    """Call a function each `interval_s` during a block, on a daemon thread.

    Args:
        call: the function; a call that hangs delays the end of the block by at most JOIN_S.
        interval_s: seconds between two calls.
        at_end: call it once more when the block has ended well.
    """
    ended = threading.Event()
    is_well = False

    def run() -> None:
        while not ended.wait(interval_s):
            call()
        if is_well and at_end:
            call()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
        is_well = True
    finally:
        ended.set()
        thread.join(JOIN_S)


@contextlib.contextmanager
def log_progress(stage: str, event: str, *, of: int = 0) -> Iterator[Counter]:
    """Log how far a block is, at least each minute; one that is shorter logs nothing.

    Args:
        stage: the stage that logs.
        event: what the block does.
        of: the count that it ends with; 0 where there is nothing to count.

    Yields:
        What the block counts in.
    """
    counter = Counter()
    start = time.monotonic()

    def line() -> None:
        passed = time.monotonic() - start
        facts: dict[str, object] = {"seconds": round(passed)}
        if of:
            facts |= {"done": counter.done, "of": of, "left": time_left(passed, counter.done / of)}
        log(stage, event, **facts)

    with repeating(line, line_interval_s()):
        yield counter


def time_left(passed_s: float, share: float) -> str:
    """Say how long the rest takes, at the speed of the share in 0..1 that is done."""
    return duration(passed_s * (1 - share) / share) if share > 0 else "unknown"


def duration(seconds: float) -> str:
    """Format a time in the two largest units that it fills."""
    if seconds < 59.95:  # above, `.1f` would print 60.0 s
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
