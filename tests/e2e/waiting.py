"""Bounded waits that say what they waited for, and what there was instead."""

import time

POLL_S = 2.0


def until(what, look, *, timeout_s, state, poll_s=None):
    """Return what `look` finds, once that is true.

    Raises:
        AssertionError: it was not for `timeout_s`; the message has what `state` returns.
    """
    end = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}; there is {state()}")
        time.sleep(POLL_S if poll_s is None else poll_s)
    return found


def require(holds, message):
    """Raise AssertionError with a message, unless a condition holds."""
    if not holds:
        raise AssertionError(message)
