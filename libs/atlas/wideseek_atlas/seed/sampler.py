"""Samples many continuations at once, with a key-value cache.

Invariant: a sample's logprobs are those of the distribution it was drawn from, at the sampling temperature and
untruncated; greedy is temperature 0, whose logprobs are those at temperature 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from wideseek_atlas.seed.model import Layer, SeedModel

_ROWS = 128


@dataclass
class Sample:
    """The ids sampled, the stop id included if it was reached, and a logprob each."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@torch.no_grad()
def sample(
    model: SeedModel,
    prompts: Sequence[Sequence[int]],
    *,
    stop: int,
    limit: int,
    temperature: float,
    generator: torch.Generator,
) -> list[Sample]:
    """Continue each prompt up to `stop`, to `limit` tokens or to the end of the model's context."""
    samples = [Sample() for _ in prompts]
    room = model.shape.positions
    order = sorted((i for i in range(len(prompts)) if len(prompts[i]) < room), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), _ROWS):
        rows = order[start : start + _ROWS]
        _Run(model, [prompts[i] for i in rows], [samples[i] for i in rows], limit).go(stop, temperature, generator)
    return samples


class _Run:
    """One block of rows: prompts padded on the right, and a cache that shrinks as rows end."""

    def __init__(
        self, model: SeedModel, prompts: Sequence[Sequence[int]], samples: Sequence[Sample], limit: int
    ) -> None:
        self._model = model
        self._samples = list(samples)
        lengths = [len(prompt) for prompt in prompts]
        self._steps = min(limit, model.shape.positions - max(lengths))
        self._next = torch.tensor(lengths)
        ids = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        hidden = self._prefill(ids)
        self._hidden = hidden[torch.arange(len(prompts)), self._next - 1]

    def go(self, stop: int, temperature: float, generator: torch.Generator) -> None:
        for step in range(self._steps):
            scores = F.log_softmax(self._model.logits(self._hidden) / (temperature or 1.0), -1)
            drawn = torch.multinomial(scores.exp(), 1, generator=generator)[:, 0] if temperature else scores.argmax(-1)
            chances = scores.gather(1, drawn[:, None])[:, 0].tolist()
            for row, (token, chance) in enumerate(zip(drawn.tolist(), chances, strict=True)):
                self._samples[row].ids.append(token)
                self._samples[row].logprobs.append(chance)
            going = (drawn != stop).nonzero()[:, 0]
            if len(going) == 0 or step + 1 == self._steps:
                return
            if len(going) < len(drawn):
                self._keep(going)
                drawn = drawn[going]
            self._hidden = self._step(drawn)

    def _prefill(self, ids: Tensor) -> Tensor:
        model, time = self._model, ids.shape[1]
        rotation = (model.cosine[:time], model.sine[:time])
        x: Tensor = model.model.embed_tokens(ids)
        for layer in model.layers:
            q, k, v = layer.self_attn.project(layer.input_layernorm(x), rotation)
            x = layer.finish(x, layer.self_attn.attend(q, k, v, None))
            self._keys.append(F.pad(k, (0, 0, 0, self._steps)))
            self._values.append(F.pad(v, (0, 0, 0, self._steps)))
        out: Tensor = model.model.norm(x)
        return out

    def _step(self, tokens: Tensor) -> Tensor:
        model, here = self._model, self._next
        used = int(here.max()) + 1
        mask = (torch.arange(used) <= here[:, None])[:, None, None, :]
        rotation = (model.cosine[here][:, None, None], model.sine[here][:, None, None])
        x: Tensor = model.model.embed_tokens(tokens[:, None])
        for number, layer in enumerate(model.layers):
            x = layer.finish(x, self._attend(number, layer, x, rotation, mask))
        self._next = here + 1
        out: Tensor = model.model.norm(x[:, 0])
        return out

    def _attend(self, number: int, layer: Layer, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attention of one new token a row; a key head's query heads share its keys as if they were time steps."""
        q, k, v = layer.self_attn.project(layer.input_layernorm(x), rotation)
        rows = torch.arange(len(x))
        self._keys[number][rows, :, self._next] = k[:, :, 0]
        self._values[number][rows, :, self._next] = v[:, :, 0]
        used = mask.shape[-1]
        shared = q.view(len(x), k.shape[1], -1, q.shape[-1])
        mixed = F.scaled_dot_product_attention(
            shared, self._keys[number][:, :, :used], self._values[number][:, :, :used], attn_mask=mask
        )
        out: Tensor = layer.self_attn.o_proj(mixed.reshape(len(x), 1, -1))
        return out

    def _keep(self, rows: Tensor) -> None:
        self._samples = [self._samples[i] for i in rows.tolist()]
        self._next = self._next[rows]
        self._keys = [keys[rows] for keys in self._keys]
        self._values = [values[rows] for values in self._values]
