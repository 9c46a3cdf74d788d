"""Requests to stop: SIGTERM, or a Ctrl-C that every process of a terminal gets."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from citeflow.errors import StoppedError
from citeflow.utils.signals import stop_with_parent as stop_with_parent

LOST_PEER = 79
"""Exit code of a worker that ends because another one is lost."""


class PeerLost(SystemExit):
    """Another worker is lost, says the standby; no library on the way may catch it."""


class PreemptionHandler:
    """Handles requests to stop: at once, or, while steps are taken, when all ranks agree on it.

    An exit at once is a SystemExit and no error to report: torchrun stops the other workers with
    the same signal when one of them is lost.
    """

    def __init__(self) -> None:
        self._requested = False
        self._deferred = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGUSR1, self._handle_lost_peer)

    @property
    def requested(self) -> bool:
        """True once a signal came."""
        return self._requested

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep requests within the block, which polls `requested` itself."""
        with self._set_deferred(True):
            yield

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Let requests end the block.

        Raises:
            SystemExit: a signal came before, or comes within the block.
        """
        with self._set_deferred(False):
            if self._requested:
                sys.exit(StoppedError.exit_code)
            yield

    @contextlib.contextmanager
    def _set_deferred(self, deferred: bool) -> Iterator[None]:
        before = self._deferred
        self._deferred = deferred
        try:
            yield
        finally:
            self._deferred = before

    def _handle(self, *_: object) -> None:
        is_repeated = self._requested
        self._requested = True
        if not is_repeated and not self._deferred:
            sys.exit(StoppedError.exit_code)

    def _handle_lost_peer(self, *_: object) -> None:
        # Within a step, the next collective fails by itself.
        if not self._deferred:
            raise PeerLost(LOST_PEER)


def ignore_signals() -> None:
    """Ignore requests to stop from here on: the work is done, only the process has to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def is_torchrun(process: int) -> bool:
    """Return True if a process is torchrun, judging by its command line."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return process != 1
    return b"torch.distributed.run" in command or b"torchrun" in command
