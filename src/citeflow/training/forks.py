"""Processes that are forked, so that they need not import anew what their parent has imported."""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from types import FrameType

import psutil
import torch

from citeflow.utils.signals import PR_SET_CHILD_SUBREAPER, stop_with_parent

POLL_S = 0.05
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Child:
    """A process that is forked again and again, and gets the signals that ask its parent to end.

    The parent must have no thread whose work the child needs: of all threads only the one that
    forks lives on.
    """

    def __init__(self) -> None:
        """Take over the signals."""
        self.is_asked_to_end = False
        self._pid: int | None = None
        for number in SIGNALS:
            signal.signal(number, self._pass_on)

    def start(self, work: Callable[[], object], *, name: str) -> None:
        """Fork a process that does some work, and ends with its exit code.

        Args:
            work: what the process does.
            name: of the process, as ps and top show it; 15 characters at most.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # A signal that came between the fork and the next line would be the parent's in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._pid = os.fork()
        if self._pid == 0:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            stop_with_parent(parent.__eq__)
            set_process_name(name)
            _end_with(work)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if self.is_asked_to_end:  # when there was no child that could have been told
            self.send(signal.SIGTERM)

    def wait(self, look: Callable[[], object] = lambda: None) -> int:
        """Wait for the end of the process; return its exit code, or minus the signal that ended it.

        Args:
            look: called now and then meanwhile.
        """
        assert self._pid is not None
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)  # orphans that fell to this process as well
            if pid == self._pid:
                self._pid = None
                return os.waitstatus_to_exitcode(status)
            look()
            time.sleep(POLL_S)

    def send(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self._pid is not None:
            os.kill(self._pid, number)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        # A second SIGTERM would make torchrun end and leave its workers behind.
        if not self.is_asked_to_end:
            self.is_asked_to_end = True
            self.send(signal.SIGTERM)


def adopt_orphans() -> None:
    """Become the parent of all processes below this one whose own parent has died."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def await_orphans(timeout_s: float) -> None:
    """Wait for the end of the processes below this one; kill those that take longer."""
    orphans = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(orphans, timeout=timeout_s)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=timeout_s)


def close_listeners() -> None:
    """Close the TCP ports that this process listens on because its parent does.

    A forked process that outlives its parent would keep the port from the next process.
    """
    for connection in psutil.Process().net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            os.close(connection.fd)


def set_process_name(name: str) -> None:
    """Set the name of this process that ps and top show."""
    torch._C._set_thread_name(name)


def _end_with(work: Callable[[], object]) -> None:
    """Do the work and end this process, without a step back into what the parent was about."""
    exit_code = 1
    try:
        work()
        exit_code = 0
    except SystemExit as ended:
        exit_code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code & 0xFF)
