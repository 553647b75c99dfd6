"""Initial weights that already look back: two heads of the first layer start as previous-token heads.

Copying by induction needs a head that knows what stood one token before; finding it by gradient costs most of a short
training. The heads are ordinary weights that training may change; the architecture is untouched.
"""

import torch
from torch import Tensor

from wideseek_atlas.seed.model import SeedModel, rope_frequencies

_PAIRS = 4  # rotary pairs used: the fastest ones tell neighbours apart best
_SHARPNESS = 2.0  # scale of the query and key norms: how much the right offset wins by
_NOISE = 0.1  # what is left of the random weights in these heads
_SIGNAL = 0.15  # the constant feature every embedding gets, which the heads read


@torch.no_grad()
def plant_previous_token_heads(model: SeedModel) -> None:
    """Turn the query heads of the first key-value head into heads for the offsets -1, -2, ...

    Each key is one fixed vector; each query is that vector rotated back by the offset, so that after the rotary
    embedding their product peaks where the key stands `offset` tokens before the query.
    """
    shape = model.shape
    attention = model.layers[0].self_attn
    half = shape.head_size // 2
    frequencies = rope_frequencies(shape)[:_PAIRS]
    model.model.embed_tokens.weight[:, 0] = _SIGNAL
    key = torch.zeros(shape.head_size)
    key[:_PAIRS] = 1.0
    _plant(attention.k_proj.weight[: shape.head_size], key)
    for head in range(shape.heads // shape.kv_heads):
        angle = (head + 1) * frequencies
        query = torch.zeros(shape.head_size)
        query[:_PAIRS] = angle.cos()
        query[half : half + _PAIRS] = -angle.sin()
        _plant(attention.q_proj.weight[head * shape.head_size : (head + 1) * shape.head_size], query)
    attention.q_norm.weight.fill_(_SHARPNESS)
    attention.k_norm.weight.fill_(_SHARPNESS)


def _plant(rows: Tensor, vector: Tensor) -> None:
    rows.mul_(_NOISE)
    rows[:, 0] = vector
