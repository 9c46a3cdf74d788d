"""Locks between processes, released by the system when their process ends."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from citeflow.errors import UnavailableError

LOOK_S = 0.2
"""More than an `is_held` takes, which holds the lock to find out whether it can."""


@contextlib.contextmanager
def exclusive(path: Path, *, wait_s: float = LOOK_S) -> Iterator[None]:
    """Hold a lock for the block.

    Args:
        path: the lock file, made if it is missing. It stays: to remove it would let two processes
            hold locks on two files of one name.
        wait_s: longest wait for another process; the default outlasts an `is_held`, no more.

    Raises:
        UnavailableError: another process still holds it after `wait_s`.
    """
    deadline_s = time.monotonic() + wait_s
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            _wait_for(file, path, deadline_s)
            if _is_at(file, path):
                yield
                return
            # Who held it has removed the folder: the next one would lock a new file.


def _wait_for(file: BinaryIO, path: Path, deadline_s: float) -> None:
    while not _lock(file):
        if time.monotonic() >= deadline_s:
            raise UnavailableError(
                "another process is at work on this", path, hint="wait until it has ended"
            )
        time.sleep(0.1)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Tell whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def is_held(path: Path) -> bool:
    """Tell whether a process holds a lock."""
    try:
        with path.open("rb") as file:
            return not _lock(file)
    except FileNotFoundError:
        return False


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
