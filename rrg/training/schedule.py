"""The learning rate of each step."""

import math


def learning_rate(peak: float, warmup: float, step: int, steps: int) -> float:
    """Linear warm-up over a share of the steps, then a cosine from ``peak`` to a tenth of it.

    Example:
        >>> [round(learning_rate(1.0, 0.1, step, 100), 3) for step in (0, 9, 10, 99)]
        [0.1, 1.0, 1.0, 0.1]
    """
    warm = round(warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)
