"""Ends a training early that is worse than others were at the same point, while it runs."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from citeflow.utils.logging import log

LOOK_EVERY_S = 1.0
"""Time between two looks at the evaluations."""

SIGNAL = signal.SIGUSR1
"""Asks this process to end the training; SIGTERM keeps its meaning, which is to end the search."""


class Pruned(KeyboardInterrupt):
    """The training is not worth going on with."""


@contextlib.contextmanager
def pruning(
    trial: Any, evaluations: Callable[[], Sequence[float]], *, may_end: bool
) -> Iterator[None]:
    """Report a training's evaluations to its trial, and end the block where the trial's pruner says so.

    Args:
        trial: of Optuna.
        evaluations: the validation MRRs so far.
        may_end: whether the pruner is asked.

    Raises:
        Pruned: the training was ended.
    """
    watcher = _Watcher(trial, evaluations, may_end=may_end)
    if watcher.look():  # before anything has begun that would have to be ended
        raise Pruned
    over: list[bool] = []

    def end(number: int, frame: FrameType | None) -> None:
        if not over:
            raise Pruned

    old = signal.signal(SIGNAL, end)
    try:
        watcher.start()
        try:
            yield
        finally:
            over.append(True)
    finally:
        watcher.finish()
        signal.signal(SIGNAL, old)
    watcher.look()


class _Watcher(threading.Thread):
    """Looks at the evaluations of a training, and asks the main thread to end it."""

    def __init__(
        self, trial: Any, evaluations: Callable[[], Sequence[float]], *, may_end: bool
    ) -> None:
        super().__init__(name="pruning", daemon=True)
        self._trial, self._evaluations, self._may_end = trial, evaluations, may_end
        self._told = set(trial.study.trials[trial.number].intermediate_values)
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(LOOK_EVERY_S):
            try:
                if self.look():
                    signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
                    return
            except Exception as error:  # a search goes on where nothing can be pruned
                log("tune", "looks no more at a training", why=f"{type(error).__name__}: {error}")
                return

    def look(self) -> bool:
        """Tell the trial what is new; returns whether its training shall end."""
        is_over = False
        for index, value in enumerate(self._evaluations(), start=1):
            if index not in self._told:
                self._told.add(index)
                self._trial.report(value, index)
                is_over = self._may_end and self._trial.should_prune()
        return is_over

    def finish(self) -> None:
        """End the thread."""
        self._finished.set()
        self.join()
