"""The learning rate schedule."""

import math

WARM_UP_STEPS = 20


def learning_rate(highest: float, step: int, share: float) -> float:
    """Warm up along a line, then decay along a cosine to a hundredth.

    Args:
        highest: the learning rate at the end of the warm-up.
        step: steps taken so far.
        share: share of the training that is done, in 0..1.
    """
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share))
    return highest * warm_up * decay
