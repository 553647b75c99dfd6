"""Group-relative advantages.

Source: GRPO as WideSeek-R1 uses it: (r - mean) / (std + 1e-6), std with one degree of freedom less, over a group.
"""

import math
import random
from collections.abc import Sequence

EPSILON = 1e-6


def advantages(rewards: Sequence[float]) -> list[float]:
    """One advantage for each reward of a group of at least 2; they add up to 0."""
    mean = sum(rewards) / len(rewards)
    deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
    return [(reward - mean) / (deviation + EPSILON) for reward in rewards]


def has_signal(rewards: Sequence[float]) -> bool:
    """Whether the group teaches anything: there are at least two rewards, and not all are the same."""
    return len(rewards) > 1 and max(rewards) - min(rewards) > EPSILON


def shuffled(values: Sequence[float], seed: str) -> list[float]:
    """The same values in an order that only `seed` decides: the control that must not learn."""
    order = list(values)
    random.Random(seed).shuffle(order)
    return order
