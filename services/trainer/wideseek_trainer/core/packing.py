"""Micro-batches of whole sequences.

Invariants: every sequence is in exactly one micro-batch; none is cut; a micro-batch's padded size (rows x longest) is
within the budget, unless a single sequence is longer than it. What a token weighs in the loss is fixed before packing,
so the gradient of a batch does not depend on how it was packed.
"""

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of the sequences of each micro-batch, short ones first."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Sorted ascending, so this sequence is the longest of its micro-batch.
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def share(count: int, rank: int, world: int) -> range:
    """The micro-batches of one learner of `world`: every world-th, so that long and short ones spread evenly."""
    return range(rank, count, world)
