"""What reinforcement learning can get out of a policy: a small GRPO in one process.

`python -m wideseek_atlas.seed.headroom POLICY` plays groups of episodes, trains on them, and prints the scores on
fixed held-out tasks before and after, paired. It is a check of the seed policy, not the trainer service: one update
a batch, so the ratio is one and no clipping acts.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from wideseek_atlas.seed.checkpoint import load_policy, save_policy
from wideseek_atlas.seed.episodes import Agent, Budget, Episode, Player
from wideseek_atlas.seed.evaluate import ROLLOUT_TEMPERATURE, evaluate, held_out, summary
from wideseek_atlas.seed.model import SeedModel
from wideseek_atlas.seed.progress import say
from wideseek_atlas.world import Split

_MICRO_BATCH = 8192  # tokens, padding included


@dataclass(frozen=True)
class Weighted:
    """One agent's conversation with its advantage and the weight of each of its generated tokens."""

    agent: Agent
    advantage: float
    weight: float


def advantages(scores: Sequence[float], group: int) -> list[float]:
    """Each score against its group's mean, over the group's standard deviation; 0 in a group without spread."""
    out: list[float] = []
    for start in range(0, len(scores), group):
        part = scores[start : start + group]
        mean, spread = fmean(part), stdev(part)
        out += [(s - mean) / (spread + 1e-6) if spread > 1e-6 else 0.0 for s in part]
    return out


def weigh(episodes: Sequence[Episode], group: int) -> list[Weighted]:
    """Every agent of every episode with an advantage: 1 / agents of the episode, 1 / tokens of the agent."""
    rows = []
    for episode, advantage in zip(episodes, advantages([e.score for e in episodes], group), strict=True):
        if advantage:
            for agent in episode.agents:
                weight = 1 / (len(episode.agents) * max(1, sum(agent.generated)) * len(episodes))
                rows.append(Weighted(agent, advantage, weight))
    return sorted(rows, key=lambda row: len(row.agent.ids))


def surrogate(model: SeedModel, rows: Sequence[Weighted], temperature: float) -> Tensor:
    """The policy-gradient loss of a micro-batch: minus the weighted sum of ratio times advantage."""
    time_ = max(len(row.agent.ids) for row in rows)
    ids = torch.zeros(len(rows), time_, dtype=torch.long)
    weights, old = torch.zeros(len(rows), time_), torch.zeros(len(rows), time_)
    for number, row in enumerate(rows):
        size = len(row.agent.ids)
        ids[number, :size] = torch.tensor(row.agent.ids)
        weights[number, :size] = torch.tensor(row.agent.generated, dtype=torch.float) * row.weight * row.advantage
        old[number, :size] = torch.tensor(row.agent.logprobs)
    wanted = weights[:, 1:] != 0
    logits = model.logits(model(ids)[:, :-1][wanted]) / temperature
    new = F.log_softmax(logits, -1).gather(1, ids[:, 1:][wanted][:, None])[:, 0]
    return -((new - old[:, 1:][wanted]).exp() * weights[:, 1:][wanted]).sum()


def learn(model: SeedModel, rows: Sequence[Weighted], optimizer: torch.optim.Optimizer, temperature: float) -> float:
    """One update over all rows; returns the gradient's norm."""
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end - start + 1) * len(rows[end].agent.ids) <= _MICRO_BATCH:
            end += 1
        surrogate(model, rows[start:end], temperature).backward()  # type: ignore[no-untyped-call]
        start = end
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def main() -> None:
    """Evaluate, train, evaluate again."""
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model, tokenizer = load_policy(options.policy)
    tasks = held_out(options.tasks)
    before = {t: evaluate(model, tokenizer, tasks, temperature=t) for t in (0.0, ROLLOUT_TEMPERATURE)}
    for temperature, episodes in before.items():
        say(f"before T {temperature}: {summary(episodes, tokenizer)}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(options.steps):
        start = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1.0, (step + 1) / 3)
        drawn = held_out(options.questions, Split.TRAIN, first=options.first + step * options.questions)
        player = Player(model, tokenizer, Budget(), ROLLOUT_TEMPERATURE, seed=options.seed * 1000 + step)
        episodes = player.play([task for task in drawn for _ in range(options.group)])
        rolled = time.monotonic()
        norm = learn(model, weigh(episodes, options.group), optimizer, ROLLOUT_TEMPERATURE)
        took = f"rollout {rolled - start:.1f} s, update {time.monotonic() - rolled:.1f} s, gradient {norm:.2f}"
        say(f"step {step + 1}: {summary(episodes, tokenizer)} {took}")
    for temperature, earlier in before.items():
        later = evaluate(model, tokenizer, tasks, temperature=temperature)
        gains = [b.score - a.score for a, b in zip(earlier, later, strict=True)]
        say(f"after T {temperature}: {summary(later, tokenizer)}")
        say(f"gain T {temperature}: {fmean(gains):+.4f}, standard error {stdev(gains) / len(gains) ** 0.5:.4f}")
    if options.out:
        save_policy(model, tokenizer, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m wideseek_atlas.seed.headroom", description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--out", type=Path, help="where to save the trained policy")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=64, help="held-out tasks to evaluate on")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first training world")
    return parser.parse_args()


if __name__ == "__main__":
    main()
