"""One learner: a model, its optimizer, one update a batch.

Invariants: the update is a function of (weights, optimizer state, batch) alone; with several learners every one holds
the same weights before and after, and their update equals that of one, for token weights are global and gradients are
summed; a loss or gradient that is not finite changes nothing and is an error.
"""

import io
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wideseek_trainer.core.errors import CheckpointError, UpdateFailedError
from wideseek_trainer.core.loss import Objective, grpo_loss
from wideseek_trainer.core.model import export, load_model, masked, policy_dtype, token_logprobs
from wideseek_trainer.core.packing import pack, share
from wideseek_trainer.core.sequences import TrainSequence

WEIGHTS_FILE = "model.safetensors"
STATE_FILE = "learner.pt"


@dataclass(frozen=True)
class LearnerSpec:
    """How to learn. `base` is the directory of the run's first policy; temperature is that of the rollouts."""

    base: str
    learning_rate: float
    temperature: float
    objective: Objective = field(default_factory=Objective)
    warmup_steps: int = 3
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    tokens_per_microbatch: int = 8192
    device: str = "cpu"


def _same(value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Collective:
    """This learner's place among `world` learners; `total` sums a tensor over all of them, in place or not."""

    rank: int = 0
    world: int = 1
    total: Callable[[Tensor], Tensor] = _same
    largest: Callable[[Tensor], Tensor] = _same


class Learner:
    """A model that learns. Nothing in here knows where batches come from."""

    def __init__(self, spec: LearnerSpec, collective: Collective | None = None) -> None:
        """Load the first policy."""
        self._spec = spec
        self._collective = collective or Collective()
        self._device = torch.device(spec.device)
        self._model = load_model(Path(spec.base), self._device)
        self._dtype = policy_dtype(self._model, Path(spec.base))
        self._parameters = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=spec.learning_rate, betas=spec.betas, weight_decay=0.0)
        self._updates = 0
        self._reference = None
        if spec.objective.kl_coefficient > 0:
            self._reference = load_model(Path(spec.base), self._device).eval().requires_grad_(False)

    def update(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        """Make one update from a batch, all of it, whatever this learner's share; returns figures.

        An empty batch changes nothing.

        Raises:
            UpdateFailedError: the loss or the gradient is not finite; the weights are unchanged.
        """
        self._check_vocabulary(sequences)
        self._optimizer.zero_grad(set_to_none=True)
        figures = self._gradient(sequences)
        if not sequences:
            return {**figures, "grad_norm": 0.0, "learning_rate": 0.0}
        self._reduce_gradient()
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self._spec.max_grad_norm))
        if not (math.isfinite(norm) and math.isfinite(figures["loss"])):
            self._optimizer.zero_grad(set_to_none=True)
            raise UpdateFailedError(f"loss {figures['loss']}, gradient norm {norm}", loss=figures["loss"], norm=norm)
        self._updates += 1
        rate = self._spec.learning_rate * min(1.0, self._updates / max(1, self._spec.warmup_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return {**figures, "grad_norm": norm, "learning_rate": rate}

    def _check_vocabulary(self, sequences: Sequence[TrainSequence]) -> None:
        size = int(self._model.config.vocab_size)  # type: ignore[union-attr, arg-type]
        highest = max((int(sequence.tokens.max()) for sequence in sequences), default=0)
        if highest >= size:
            raise UpdateFailedError(
                f"token {highest} is past the model's vocabulary of {size}: the episodes are another model's",
                token=highest,
                vocabulary=size,
            )

    def _gradient(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        names = ("loss", "kl", "clip_fraction", "importance_mean", "importance_cut_fraction", "entropy")
        sums = dict.fromkeys(names, 0.0)
        largest = 0.0
        batches = pack([len(sequence.tokens) for sequence in sequences], self._spec.tokens_per_microbatch)
        for index in share(len(batches), self._collective.rank, self._collective.world):
            chosen = [sequences[i] for i in batches[index]]
            new, entropy = token_logprobs(self._model, chosen, self._spec.temperature, self._device)
            weight = masked(chosen, "weight", self._device)
            parts = grpo_loss(
                self._spec.objective,
                new=new,
                old=new.detach(),
                rollout=masked(chosen, "logprobs", self._device),
                advantage=masked(chosen, "advantage", self._device),
                weight=weight,
                reference=self._reference_logprobs(chosen),
            )
            parts.loss.backward()  # type: ignore[no-untyped-call]
            sums["entropy"] += float((weight * entropy).sum())
            largest = max(largest, parts.importance_max)
            for name, value in parts.sums.items():
                sums[name] += value
        total = self._collective.total(torch.tensor([sums[name] for name in names], dtype=torch.float64))
        peak = self._collective.largest(torch.tensor([largest], dtype=torch.float64))
        return {**dict(zip(names, total.tolist(), strict=True)), "importance_max": float(peak[0])}

    def _reference_logprobs(self, chosen: Sequence[TrainSequence]) -> Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            return token_logprobs(self._reference, chosen, self._spec.temperature, self._device)[0]

    def _reduce_gradient(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is None:  # a learner without a share still takes part in the sum
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(self._collective.total(parameter.grad))

    def save(self, directory: Path) -> None:
        """Write the policy's weights, and what a learner needs to go on exactly from here, into `directory`."""
        (directory / WEIGHTS_FILE).write_bytes(export(self._model, self._dtype))
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "updates": self._updates,
            "rng": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        (directory / STATE_FILE).write_bytes(buffer.getvalue())

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            CheckpointError: it cannot be read or is of another model.
        """
        try:
            state: dict[str, Any] = torch.load(directory / STATE_FILE, map_location=self._device, weights_only=True)
            self._model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._updates = int(state["updates"])
            torch.set_rng_state(state["rng"].cpu())
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{directory / STATE_FILE}: {error}", directory=directory) from error
