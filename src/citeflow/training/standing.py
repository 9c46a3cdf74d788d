"""Standing of a training, as its log and the status of its job tell it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A moment of a training."""

    activity: str
    """What rank 0 does: training, validating, or finishing."""

    step: int
    num_steps: int | None
    """Steps of the whole training; None where its end is a time."""

    share: float
    """Share of the training that is done, in 0..1."""

    seconds: float
    """Time spent in training, over all starts of the workers."""

    samples: int
    """Samples trained on, over all ranks."""

    loss: float | None
    """Mean loss of all ranks at the last recorded step; None before the first."""

    score: float | None
    """Score of the last validation; None before the first."""

    @property
    def seconds_left(self) -> float | None:
        """Time until the last step, at the mean speed so far; None before the first."""
        if self.share <= 0:
            return None
        return max(0.0, self.seconds * (1 - self.share) / self.share)
