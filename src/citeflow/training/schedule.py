"""How fast a training learns, step by step."""

import math

WARM_UP_STEPS = 20


def learning_rate(highest: float, step: int, share: float) -> float:
    """Rise along a line over the first steps, then fall along half a cosine to a hundredth."""
    return (
        highest
        * min(1.0, (step + 1) / WARM_UP_STEPS)
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
    )
