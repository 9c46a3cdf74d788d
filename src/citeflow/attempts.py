"""A step of a pipeline as a child process, which its parent starts again after a crash.

Argo, as Kubeflow Pipelines sets it up, retries lost pods and nothing else: a step that crashes is
final there, whatever retries the pipeline asks for (kubeflow/pipelines issue 9950). So a step forks
at its start. The child goes on and does all the work; the parent has imported nothing heavy, waits,
and forks again. What the step has done before is found by content, as if the pod were a new one.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from citeflow.errors import CiteflowError, ConfigError, StoppedError, may_pass
from citeflow.utils.logging import log
from citeflow.utils.signals import stop_when_closed, stop_with_parent

RETRIES = 2
FIRST_PAUSE_S = 30
BACKOFF_FACTOR = 2
"""Limits of a step's retries, within its pod as by Argo; each pause is longer by the factor."""

PAUSE_VARIABLE = "CITEFLOW_RETRY_PAUSE_S"
"""Environment variable with another first pause, in seconds."""

RUNNER_VARIABLE = "CITEFLOW_RUNNER"
"""Environment variable with a FIFO that the runner of pipelines on this machine has open; steps
stop when it is closed."""

EXECUTOR_VARIABLE = "_KFP_RUNTIME"
"""Environment variable that tells KFP's executor, which is a process of its own, from a command."""

POLL_S = 0.2

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a step."""

    is_last: bool
    """True if the step has failed for good when this attempt fails."""

    parent: int
    """Process that starts the next attempt; 0 if there is none."""


_current: list[Attempt] = []
"""The attempt that this process is, if it has been forked for one."""


def current_attempt() -> Attempt:
    """Return the attempt that this process is: where nothing was forked, the only one."""
    return _current[0] if _current else Attempt(is_last=True, parent=0)


def begin_attempt() -> None:
    """Fork, and return in the child, as often as it crashes and may be started again.

    A component calls it before it imports anything else. Outside of KFP's executor, as where a test
    calls the component's function, it does nothing.

    Raises:
        SystemExit: in the parent, which never returns otherwise: the child's exit code.
    """
    if os.environ.get(EXECUTOR_VARIABLE) != "true":
        return
    parent = os.getpid()
    pause_s = _first_pause_s()
    child = _Child()
    with child.signals_forwarded():
        if runner := os.environ.get(RUNNER_VARIABLE):
            stop_when_closed(Path(runner))
        for left in reversed(range(RETRIES + 1)):
            exit_code = child.fork()
            if exit_code is None:
                _current[:] = [Attempt(is_last=not left, parent=parent)]
                return
            why = _why_again(exit_code)
            if child.received or not why or (not left and exit_code >= 0):
                raise SystemExit(exit_code if exit_code >= 0 else 128 - exit_code)
            if not left:
                hint = "it may have run out of memory; the same run again resumes what is saved"
                what = f"the step was killed {RETRIES + 1} times, the last time by"
                fail(CiteflowError(what, why, hint=hint, exit_code=128 - exit_code))
            log("step", "starts again", after=why, seconds=pause_s, retries_left=left)
            child.pause(pause_s)
            pause_s *= BACKOFF_FACTOR


def fail(error: CiteflowError, *, is_final: bool = True) -> NoReturn:
    """End the process with an error: its two lines last on stderr, and its exit code.

    Args:
        error: the error.
        is_final: leave it as the container's termination message as well.

    Raises:
        SystemExit: always.
    """
    # Imported as late as this: the parent, which has no use for it, stays below 20 MB.
    from citeflow.files import termination_message

    if is_final:
        termination_message.write(error)
    print(error, file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code) from None


def _first_pause_s() -> float:
    text = os.environ.get(PAUSE_VARIABLE, str(FIRST_PAUSE_S))
    with contextlib.suppress(ValueError):
        pause_s = float(text)
        if 0 <= pause_s < math.inf:
            return pause_s
    fail(ConfigError(PAUSE_VARIABLE, text, hint="must be a number of seconds, 0 or more"))


def _why_again(exit_code: int) -> str:
    """Return the reason to start again, empty if the end is final; a signal's number is below 0."""
    if not may_pass(exit_code):
        return ""
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"


class _Child:
    """The child process, and the signals that its parent passes on to it."""

    def __init__(self) -> None:
        self.received = 0
        self._pid = 0

    @contextlib.contextmanager
    def signals_forwarded(self) -> Iterator[None]:
        """Pass on the first request to stop, as a second would end the child before it cleans up.

        The block is left in the child as well, which thereby has the handlers of before.
        """
        before = {number: signal.signal(number, self._forward) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def fork(self) -> int | None:
        """Return None in a new child; in the parent its exit code, or its signal's number below 0.

        In the child the signals are blocked until it leaves `signals_forwarded`.
        """
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        is_parent: Callable[[int], bool] = os.getpid().__eq__
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._end_if_asked()
        self._pid = os.fork()
        if not self._pid:
            # Argo and terminals signal whole process groups; the child hears of it from its parent.
            os.setpgid(0, 0)
            stop_with_parent(is_parent)
            return None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt; a signal ends the process."""
        end = time.monotonic() + seconds
        while not self.received and (left := end - time.monotonic()) > 0:
            time.sleep(min(POLL_S, left))
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        """End the process if a signal came while there was no child to pass it on to."""
        if self.received:
            name = signal.Signals(self.received).name
            fail(StoppedError("stopped by a signal", name, exit_code=128 + self.received))

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if not self.received and self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)
        self.received = self.received or number
