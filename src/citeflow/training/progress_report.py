"""Rank 0 says how far the training is: in the log at least each minute, and in a TrainJob's status.

Both happen on threads of their own, which read what the trainer has noted: no step waits for them.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from citeflow.tasks.names import Names
from citeflow.training import trainjob_status
from citeflow.training.standing import Standing
from citeflow.training.trainer import Trainer
from citeflow.utils.logging import log
from citeflow.utils.progress import duration, line_interval_s, repeating


@contextlib.contextmanager
def report_progress(trainer: Trainer) -> Iterator[None]:
    """Report how far a training is during a block; ranks other than 0 report nothing."""
    if not trainer.group.is_main:
        yield
        return
    with (
        repeating(ProgressLine(trainer.standing, trainer.names), line_interval_s()),
        trainjob_status.reporting(trainer.standing, trainer.names),
    ):
        yield


class ProgressLine:
    """Logs a line at each call, with the speed since the one before."""

    def __init__(self, standing: Callable[[], Standing], names: Names) -> None:
        self._standing = standing
        self._names = names
        self._at_s = time.monotonic()
        self._samples = standing().samples

    def __call__(self) -> None:
        """Log the line."""
        now = self._standing()
        at_s = time.monotonic()
        per_s = (now.samples - self._samples) / max(at_s - self._at_s, 1e-9)
        self._at_s, self._samples = at_s, now.samples
        log("train", now.activity, **line_facts(now, per_s, self._names))


def line_facts(now: Standing, samples_per_s: float, names: Names) -> dict[str, object]:
    """Return the facts of a line: step of steps, share, loss, speed, time left."""
    steps = {} if now.num_steps is None else {"of": now.num_steps}
    loss = {} if now.loss is None else {"loss": now.loss}
    left = now.seconds_left
    return {
        "step": now.step,
        **steps,
        "done": f"{min(100, math.floor(100 * now.share))}%",
        **loss,
        f"{names.samples}_per_s": round(samples_per_s),
        "left": "unknown" if left is None else duration(left),
    }
