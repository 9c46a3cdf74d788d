"""Ctrl-C and SIGTERM: the processes below this one end too, and what was begun is cleaned up on the way out."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import psutil

from citeflow.errors import CiteflowError, StoppedError

GRACE_S = 25.0
"""Time that a child process has to save what it can; Kubernetes gives a pod 30 s."""

SHELLS = ("sh", "bash", "dash")


@contextlib.contextmanager
def handle_signals(tell: Callable[[CiteflowError], None] = lambda error: None) -> Iterator[None]:
    """Run a block that a signal ends, children first; a second signal ends the process at once.

    Args:
        tell: hears of the signal before the children do.

    Raises:
        StoppedError: SIGINT or SIGTERM came; its exit code is 130 or 143.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in old:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(Exception):  # a full disk must not keep the process from ending
            tell(_stopped(number))
        end_children()
        raise KeyboardInterrupt  # unlike an Exception, no library on the way takes it for a failure of its own

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in old:
            signal.signal(number, stop)
        yield
    except KeyboardInterrupt:
        raise _stopped(received[0] if received else signal.SIGINT) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def end_children() -> None:
    """Ask the child processes to end, which ask theirs, and kill whatever is left below this one after GRACE_S."""
    family = psutil.Process().children(recursive=True)
    for child in _answerable():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(family, timeout=GRACE_S)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _answerable() -> Iterator[psutil.Process]:
    """The direct children; a shell passes no signal on, so what it started stands beside it."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            below = child.children() if child.name() in SHELLS else []
            yield from [*below, child]


def _stopped(number: int) -> StoppedError:
    error = StoppedError(
        "stopped by a signal", signal.Signals(number).name, hint="run the same command again"
    )
    error.exit_code = 128 + number
    return error
