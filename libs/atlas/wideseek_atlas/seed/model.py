"""The seed policy's network: the Qwen3 decoder in plain torch, weight for weight transformers' Qwen3ForCausalLM.

Plain torch trains and samples faster on one CPU core than the general class. Invariant: the parameters' names and
maths are transformers' own, so a saved policy loads there, and in vLLM, unchanged (a test compares the logits).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]
Rotation = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Shape:
    """The sizes of the network."""

    vocabulary: int
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    intermediate: int = 384
    rope_base: float = 10_000.0
    positions: int = 2048
    epsilon: float = 1e-6


class RmsNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale."""

    def __init__(self, size: int, epsilon: float) -> None:
        """Start with a scale of one."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self._epsilon)


class Attention(nn.Module):
    """Grouped-query attention with normed, rotated queries and keys."""

    def __init__(self, shape: Shape) -> None:
        """Make the projections, without biases."""
        super().__init__()
        self._heads, self._kv_heads, self._size = shape.heads, shape.kv_heads, shape.head_size
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_size, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_size, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_size, shape.hidden, bias=False)
        self.q_norm = RmsNorm(shape.head_size, shape.epsilon)
        self.k_norm = RmsNorm(shape.head_size, shape.epsilon)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x [batch, time, hidden], each [batch, heads, time, size]."""
        rows, time, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(rows, time, self._heads, self._size)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(rows, time, self._kv_heads, self._size)).transpose(1, 2)
        v = self.v_proj(x).view(rows, time, self._kv_heads, self._size).transpose(1, 2)
        return _rotate(q, rotation), _rotate(k, rotation).to(q.dtype), v.to(q.dtype)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention over all keys, causal without a mask (bool, broadcast to [batch, heads, time, keys])."""
        repeat = self._heads // self._kv_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        projected: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return projected


class Mlp(nn.Module):
    """The gated feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        """Make the projections, without biases."""
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., hidden] to the same shape."""
        mapped: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return mapped


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape) -> None:
        """Make both parts and their norms."""
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = RmsNorm(shape.hidden, shape.epsilon)
        self.post_attention_layernorm = RmsNorm(shape.hidden, shape.epsilon)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output from its input and its attention's result."""
        x = x + attended
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        """Make the parts."""
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.hidden, shape.epsilon)


class SeedModel(nn.Module):
    """The language model; the output matrix is the embedding."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape) -> None:
        """Make the network with fresh random weights, from torch's global generator."""
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, 0.0, _spread(name, parameter))
        angles = torch.arange(shape.positions).float()[:, None] * rope_frequencies(shape)
        angles = torch.cat((angles, angles), -1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    @property
    def layers(self) -> list[Layer]:
        """The decoder layers, typed."""
        return [layer for layer in self.model.layers if isinstance(layer, Layer)]

    def forward(self, ids: Tensor) -> Tensor:
        """The last hidden states [batch, time, hidden] of ids [batch, time]."""
        x: Tensor = self.model.embed_tokens(ids)
        rotation = (self.cosine[: ids.shape[1]], self.sine[: ids.shape[1]])
        for layer in self.layers:
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), rotation)
            x = layer.finish(x, layer.self_attn.attend(q, k, v, None))
        out: Tensor = self.model.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """The scores over the vocabulary of hidden [..., hidden]."""
        return F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype))


def rope_frequencies(shape: Shape) -> Tensor:
    """The rotary embedding's frequencies [head_size / 2]."""
    return shape.rope_base ** (-torch.arange(0, shape.head_size, 2) / shape.head_size)


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * rotation[0] + torch.cat((-high, low), -1) * rotation[1]


def _spread(name: str, weight: Tensor) -> float:
    if "embed_tokens" in name:
        return 0.02
    into_stream = "o_proj" in name or "down_proj" in name
    return (0.5 if into_stream else 1.0) / math.sqrt(weight.shape[1])
