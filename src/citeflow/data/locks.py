"""Locks of stages that may run at the same time, on the same data."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from citeflow import files
from citeflow.errors import UnavailableError
from citeflow.utils.logging import log

LOG_EVERY_S = 60.0
MAX_WAIT_MIN = 360
"""Longest wait for another process that does the same."""


@contextlib.contextmanager
def exclusive(lock: Path, *, stage: str) -> Iterator[None]:
    """Hold a lock for the block; while another process holds it, log so every minute.

    Raises:
        UnavailableError: it takes too long.
    """
    with contextlib.ExitStack() as stack:
        for minutes in range(MAX_WAIT_MIN + 1):
            try:
                stack.enter_context(files.exclusive(lock, wait_s=LOG_EVERY_S))
                break
            except UnavailableError:
                if minutes == MAX_WAIT_MIN:
                    raise
                log(stage, "waiting for another process", minutes=minutes + 1, lock=lock)
        yield
