"""Makes the seed policy from random weights: `python -m wideseek_atlas.seed.train`.

A staged curriculum: lists to copy, then all copy drills, then whole episodes with milder habits, then the full mixture
of habits. Stages end by steps, never by the clock, and all randomness comes from `--seed`, so a run can be repeated.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from wideseek_atlas import seed_policy_path
from wideseek_atlas.habits import SEED_MIXTURE, Mixture
from wideseek_atlas.seed.batches import Batch, Batches
from wideseek_atlas.seed.card import write_card
from wideseek_atlas.seed.checkpoint import save_policy
from wideseek_atlas.seed.copying import CopyCheck
from wideseek_atlas.seed.evaluate import measure
from wideseek_atlas.seed.initial import plant_previous_token_heads
from wideseek_atlas.seed.model import SeedModel, Shape
from wideseek_atlas.seed.progress import say
from wideseek_atlas.seed.render import Renderer
from wideseek_atlas.seed.tokenizer import build_tokenizer

_VOCABULARY_MULTIPLE = 64
_REPORT_EVERY = 25
_CHECK_EVERY = 250
_WARM_STEPS = 60
_FLAT_SHARE = 0.5  # of the steps, at the full rate
_LOWEST_RATE = 0.02  # of the full rate
_FIRST_WORLD = 1000  # the worlds below were sampled for the tokenizer


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum.

    Attributes:
        steps: updates.
        tokens: tokens a batch, padding included.
        drills: share of the batches that are copy drills.
        lists_only: whether the drills are lists alone.
        mixture: the habits of the episodes.
    """

    name: str
    steps: int
    tokens: int
    drills: float
    lists_only: bool
    mixture: Mixture


def curriculum(list_steps: int, drill_steps: int, early_steps: int, late_steps: int) -> list[Stage]:
    """The stages, in order."""
    return [
        Stage("lists", list_steps, 1536, 1.0, True, Mixture()),
        Stage("drills", drill_steps, 1536, 1.0, False, Mixture()),
        Stage("early", early_steps, 3072, 0.25, False, SEED_MIXTURE.scaled(0.4)),
        Stage("late", late_steps, 4096, 0.04, False, SEED_MIXTURE),
    ]


class Trainer:
    """Cross-entropy on the tokens the model is to produce; Muon for matrices, AdamW for the rest."""

    def __init__(self, model: SeedModel, rate: float, steps: int) -> None:
        """The rate warms up, stays for half of `steps`, then falls linearly."""
        self._model = model
        self._steps = steps
        matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in n]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        self._optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self._rate = rate

    def update(self, batch: Batch, step: int) -> Tensor:
        """One update; returns the loss before it, detached."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate * self._factor(step)
        loss = episode_loss(self._model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def _factor(self, step: int) -> float:
        warm = min(1.0, (step + 1) / _WARM_STEPS)
        past = max(0.0, step / self._steps - _FLAT_SHARE) / (1 - _FLAT_SHARE)
        return warm * max(_LOWEST_RATE, 1 - past)


def episode_loss(model: SeedModel, batch: Batch) -> Tensor:
    """The mean cross-entropy over the tokens to produce, in bfloat16 where torch's autocast allows it."""
    ids, weights = batch
    wanted = weights[:, 1:] > 0
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(ids)[:, :-1][wanted]
        logits = model.logits(hidden.bfloat16())
    return F.cross_entropy(logits.float(), ids[:, 1:][wanted])


class Schedule:
    """The curriculum's batches, in order, and what was drawn of them."""

    def __init__(self, source: Batches, stages: list[Stage], seed: int) -> None:
        """`seed` decides which batches are drills."""
        self._source, self._stages = source, stages
        self._generator = torch.Generator().manual_seed(seed + 1)
        self.steps = sum(stage.steps for stage in stages)
        self.tokens = 0

    def __iter__(self) -> Iterator[tuple[str, Batch]]:
        """The batches with their stages' names."""
        for stage in self._stages:
            for _ in range(stage.steps):
                batch = self._draw(stage)
                self.tokens += batch[0].numel()
                yield stage.name, batch

    def _draw(self, stage: Stage) -> Batch:
        if float(torch.rand((), generator=self._generator)) < stage.drills:
            return self._source.drill(stage.tokens, lists_only=stage.lists_only)
        return self._source.episodes(stage.tokens, stage.mixture)


def main() -> None:
    """Train, save, play held-out tasks, and write the model card."""
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    tokenizer = build_tokenizer()
    model = SeedModel(Shape(-(-len(tokenizer) // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE))
    plant_previous_token_heads(model)
    stages = curriculum(options.list_steps, options.drill_steps, options.early_steps, options.late_steps)
    schedule = Schedule(Batches(Renderer(tokenizer), options.seed, _FIRST_WORLD), stages, options.seed)
    say(f"{sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens, {schedule.steps} steps")
    _train(model, tokenizer, schedule, options.rate, options.snapshots)
    save_policy(model, tokenizer, options.out)
    if options.tasks:
        figures = measure(options.out, options.tasks)
        say(json.dumps(figures, indent=1))
        drawn = f"{schedule.steps} updates on {schedule.tokens / 1e6:.1f} M tokens"
        write_card(options.out, figures, options.tasks, f"`make seed-policy` (seed {options.seed}): {drawn}")


def _train(
    model: SeedModel, tokenizer: PreTrainedTokenizerFast, schedule: Schedule, rate: float, snapshots: Path | None
) -> None:
    trainer = Trainer(model, rate, schedule.steps)
    check = CopyCheck(Renderer(tokenizer), tokenizer)
    start, losses = time.monotonic(), list[Tensor]()
    for step, (stage, batch) in enumerate(schedule, 1):
        losses.append(trainer.update(batch, step - 1))
        if step % _REPORT_EVERY == 0:
            took, loss = time.monotonic() - start, float(torch.stack(losses).mean())
            speed = f"{took:.0f} s, {schedule.tokens / took:.0f} tok/s, {schedule.tokens / 1e6:.2f} M tokens"
            say(f"step {step} {stage} loss {loss:.4f} {speed}")
            losses.clear()
        if step % _CHECK_EVERY == 0:
            say(f"  copies right: {check.measure(model)}")
            if snapshots:
                save_policy(model, tokenizer, snapshots / stage)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wideseek_atlas.seed.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=seed_policy_path(), help="folder to write the policy to")
    parser.add_argument("--snapshots", type=Path, help="folder for what each stage has reached so far")
    parser.add_argument("--tasks", type=int, default=128, help="held-out tasks to play for the model card; 0: no card")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list-steps", type=int, default=280)
    parser.add_argument("--drill-steps", type=int, default=320)
    parser.add_argument("--early-steps", type=int, default=1900)
    parser.add_argument("--late-steps", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=3e-3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
