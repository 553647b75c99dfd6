"""Whether weights fit the running model.

Invariant: the same tensor names, shapes and types, or the first difference is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass


class WeightsRejectedError(Exception):
    """A policy version cannot be loaded: it is incomplete, damaged or of another model. Trying again does not help."""


@dataclass(frozen=True)
class Tensor:
    """Type and shape of one tensor, as safetensors writes them."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Layout = Mapping[str, Tensor]


def check_layout(expected: Layout, found: Layout) -> None:
    """Refuse weights of another layout.

    Raises:
        WeightsRejectedError: names the first tensor that differs, what it should be and what it is.
    """
    for name in sorted(expected.keys() | found.keys()):
        have, want = found.get(name), expected.get(name)
        if have is None:
            raise WeightsRejectedError(f"tensor {name} is missing; the model has {want}")
        if want is None:
            raise WeightsRejectedError(f"tensor {name} {have} is not one of the model's {len(expected)} tensors")
        if have != want:
            raise WeightsRejectedError(f"tensor {name} is {have}; the model has {want}")
