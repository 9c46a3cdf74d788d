"""Ctrl-C and SIGTERM: end the child processes, and let the stack unwind so that it cleans up."""

import contextlib
import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil

from citeflow.errors import CiteflowError, StoppedError

GRACE_S = 25.0
"""Time for child processes to save their state; Kubernetes gives a pod 30 s."""

SHELLS = ("sh", "bash", "dash")
SANDBOX = "bwrap"

PR_SET_PDEATHSIG = 1  # of Linux' <sys/prctl.h>
PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def handle_signals(
    on_signal: Callable[[CiteflowError], None] = lambda error: None,
) -> Iterator[None]:
    """Run a block that a signal ends, children first; a second signal ends the process at once.

    Args:
        on_signal: called with the error before the children are terminated.

    Raises:
        StoppedError: SIGINT or SIGTERM came; its exit code is 130 or 143.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(Exception):  # a full disk must not keep the process from ending
            on_signal(_stopped(number))
        terminate_children()
        # An Exception could be caught by any library on the way, as if it were its own failure.
        raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt:
        raise _stopped(received[0] if received else signal.SIGINT) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_with_parent(is_parent: Callable[[int], bool]) -> None:
    """Ask the kernel for a SIGTERM when the parent process dies, so that no orphan keeps running.

    Args:
        is_parent: tells by its process id whether a process is the parent; if the one above this
            process is not, the parent has died already.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if not is_parent(os.getppid()):
        os._exit(StoppedError.exit_code)


def stop_when_closed(fifo: Path) -> None:
    """Ask the kernel for a SIGTERM when no process has a FIFO open for writing any more.

    So a process hears of the death of one that is not its parent, such as where a shell is between.
    A process id would not do: it may have been given to another process since.
    """
    try:
        end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)  # stays open: a closed one sends no signal
        fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(end, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        os.read(end, 1)
    except BlockingIOError:  # there is a writer, from whom nothing comes
        return
    except FileNotFoundError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def open_fifo(fifo: Path) -> Iterator[None]:
    """Make a FIFO and have it open for writing during the block; no child process inherits it."""
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)  # on Linux that waits for no reader
    try:
        yield
    finally:
        os.close(end)


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
    """Kill at the end of a block what is left of the processes that were started in it.

    Processes whose parent has died become children of this one, for as long as the block runs.
    """
    before = set(psutil.Process().children(recursive=True))
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        deadline = time.monotonic() + GRACE_S
        # Again, as one that was not yet killed may have started another meanwhile.
        while (left := _left_since(before)) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=deadline - time.monotonic())
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def _left_since(before: set[psutil.Process]) -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True)) - before


def terminate_children() -> None:
    """Terminate the child processes, which terminate theirs; after GRACE_S kill all that remain."""
    descendants = psutil.Process().children(recursive=True)
    for child in _signal_receivers():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(descendants, timeout=GRACE_S)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def receivers(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the processes that a signal for a child is meant for.

    A shell passes no signal on; one that bubblewrap gets ends all in its sandbox at once.
    """
    if process.name() == SANDBOX:
        for child in process.children():
            yield from receivers(child)
        return
    yield from process.children() if process.name() in SHELLS else []
    yield process


def _signal_receivers() -> Iterator[psutil.Process]:
    """Yield the receivers of all direct children."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from list(receivers(child))


def _stopped(number: int) -> StoppedError:
    error = StoppedError(
        "stopped by a signal", signal.Signals(number).name, hint="run the same command again"
    )
    error.exit_code = 128 + number
    return error
