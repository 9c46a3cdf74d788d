"""Requests to stop: SIGTERM, or a Ctrl-C that every process of a terminal gets."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from citeflow.errors import StoppedError

PR_SET_PDEATHSIG = 1  # of Linux' <sys/prctl.h>


class StopRequests:
    """Ends this process at once where nothing is lost by it; while steps are taken, it waits until the ranks agree.

    An end at once is a SystemExit, and no error to tell: torchrun asks the others in the same way where one is lost.
    """

    def __init__(self) -> None:
        self._asked, self._waits = False, False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Let requests wait within the block, which asks for them itself."""
        with self._waiting(True):
            yield

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let requests end the block.

        Raises:
            SystemExit: somebody asked, or does so meanwhile.
        """
        with self._waiting(False):
            if self._asked:
                sys.exit(StoppedError.exit_code)
            yield

    @contextlib.contextmanager
    def _waiting(self, waits: bool) -> Iterator[None]:
        before, self._waits = self._waits, waits
        try:
            yield
        finally:
            self._waits = before

    def _ask(self, *_: object) -> None:
        is_first, self._asked = not self._asked, True
        if is_first and not self._waits:
            sys.exit(StoppedError.exit_code)


def end_undisturbed() -> None:
    """Let no request disturb what a process does after its work."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def stop_with_parent(is_parent: Callable[[int], bool]) -> None:
    """Let this process get a SIGTERM when the one that started it is gone, so that nothing is left running.

    Args:
        is_parent: whether a process id is that of the one which started this one; if not, it is gone already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not is_parent(os.getppid()):
        os._exit(StoppedError.exit_code)


def is_torchrun(process: int) -> bool:
    """Whether a process is torchrun, as far as can be seen."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return process != 1
    return b"torch.distributed.run" in command or b"torchrun" in command
