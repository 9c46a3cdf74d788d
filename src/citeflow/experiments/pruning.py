"""Pruning: a training that is worse than the others were at the same point is ended while it runs.

The training blocks the main thread until its workers end. So a thread reads the validations, and a
signal to this process raises `Pruned` in the main thread, which ends the workers on its way out.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import optuna

from citeflow.utils.logging import log

POLL_S = 1.0
"""Time between two looks at the validations."""

SIGNAL = signal.SIGUSR1
"""Raises Pruned in the main thread; SIGTERM keeps its meaning, which is to stop the search."""


class Pruned(KeyboardInterrupt):
    """A training is ended since it is not promising.

    Like KeyboardInterrupt, and unlike Exception, no handler of errors takes it for one.
    """


@contextlib.contextmanager
def pruning(
    trial: optuna.Trial, read_validations: Callable[[], Sequence[float]], *, may_prune: bool
) -> Iterator[None]:
    """Report the validations of a training to its trial, and end the block if it is to be pruned.

    Args:
        trial: trial of the training.
        read_validations: reads the validation scores so far.
        may_prune: whether the pruner is asked at all.

    Raises:
        Pruned: the training was ended.
    """
    reporter = _Reporter(trial, read_validations, may_prune=may_prune)
    if reporter.report():  # a resumed training that was ended before must not start workers again
        raise Pruned
    is_over = False

    def prune(number: int, frame: FrameType | None) -> None:
        if not is_over:
            raise Pruned

    previous = signal.signal(SIGNAL, prune)
    try:
        reporter.start()
        try:
            yield
        finally:
            is_over = True
    finally:
        reporter.stop()
        signal.signal(SIGNAL, previous)
    reporter.report()


class _Reporter(threading.Thread):
    """Reports validations to a trial, and signals the main thread when it should be pruned."""

    def __init__(
        self,
        trial: optuna.Trial,
        read_validations: Callable[[], Sequence[float]],
        *,
        may_prune: bool,
    ) -> None:
        super().__init__(name="pruning", daemon=True)
        self._trial = trial
        self._read_validations = read_validations
        self._may_prune = may_prune
        self._reported = set(trial.study.trials[trial.number].intermediate_values)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Report until the training ends or should end."""
        while not self._stopped.wait(POLL_S):
            try:
                if self.report():
                    signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
                    return
            except Exception as error:  # the training is worth more than its pruning
                why = f"{type(error).__name__}: {error}"
                log("tune", "stops watching a training", why=why)
                return

    def report(self) -> bool:
        """Report new validations; return whether the trial should be pruned."""
        is_pruned = False
        for index, value in enumerate(self._read_validations(), start=1):
            if index not in self._reported:
                self._reported.add(index)
                self._trial.report(value, index)
                is_pruned = self._may_prune and self._trial.should_prune()
        return is_pruned

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()
