"""Bounded waits that say what they waited for, and what there was instead."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Found = TypeVar("Found")

POLL_S = 2.0


def until(
    what: str,
    look: Callable[[], Found],
    *,
    timeout_s: float,
    state: Callable[[], Any] = lambda: "nothing",
    poll_s: float | None = None,
) -> Found:
    """What `look` finds, once that is true.

    Raises: AssertionError, after `timeout_s`, with what `state` says."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}; there is {state()}")
        time.sleep(POLL_S if poll_s is None else poll_s)
    return found


def require(holds: object, told: str) -> None:
    """Raises: AssertionError, with these words."""
    if not holds:
        raise AssertionError(told)
