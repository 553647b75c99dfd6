"""How a policy plays on tasks it never saw: scores, and the habits read from its conversations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from transformers import PreTrainedTokenizerFast

from wideseek_atlas.expert import UNKNOWN
from wideseek_atlas.scoring import gold_items, table_items
from wideseek_atlas.seed.checkpoint import load_policy
from wideseek_atlas.seed.episodes import Budget, Episode, Player
from wideseek_atlas.seed.model import SeedModel
from wideseek_atlas.tasks import Task, draw_tasks
from wideseek_atlas.world import Split, World

ROLLOUT_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Traits:
    """What one multi-agent episode shows: habits as 0 or 1 or a share, and wrong cells as a share of its items."""

    score: float
    cut: float
    few: float
    cram: float
    read: float
    drop: float
    wrong: float
    table: float
    subagents: float

    @property
    def faultless(self) -> bool:
        """Free of every habit, with a table."""
        return not (self.cut or self.few or self.cram or self.drop) and self.read == 1.0 and self.table == 1.0


def held_out(count: int, split: Split = Split.HELDOUT, first: int = 0) -> list[tuple[World, Task]]:
    """One task from each of `count` worlds."""
    drawn = (draw_tasks(split, first + index) for index in range(count))
    return [(world, tasks[0]) for world, tasks in drawn]


def traits(episode: Episode, tokenizer: PreTrainedTokenizerFast) -> Traits:
    """Read one episode."""
    lead = str(tokenizer.decode(episode.lead.ids))
    items, gold = table_items(episode.answer), gold_items(episode.task)
    columns = {column for _, column, _ in items}
    wrong = [item for item in items - gold if item[2] != UNKNOWN]
    askers = [agent for agent in episode.subagents if agent.prompt.startswith("Find for")]
    return Traits(
        score=episode.score,
        cut=float(". Some " in lead),
        few=float("\nfew, " in lead),
        cram=float(", two each." in lead),
        read=fmean([float(agent.pages_read > 0) for agent in askers] or [0.0]),
        drop=float(bool(items) and not set(episode.task.columns) <= columns),
        wrong=len(wrong) / max(1, len(items)),
        table=float(bool(items)),
        subagents=float(len(episode.subagents)),
    )


def summary(episodes: Sequence[Episode], tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """The means over episodes, the score's standard error, and the faultless episodes' own score."""
    seen = [traits(episode, tokenizer) for episode in episodes]
    means = {name: fmean(getattr(t, name) for t in seen) for name in Traits.__dataclass_fields__}
    means["error"] = stdev(t.score for t in seen) / len(seen) ** 0.5
    means["faultless"] = fmean(float(t.faultless) for t in seen)
    if clean := [t.score for t in seen if t.faultless]:
        means["faultless_score"] = fmean(clean)
    return {name: round(value, 4) for name, value in means.items()}


def by_size(episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean score by the number of rows asked for."""
    bands = {"3-5": range(3, 6), "6-8": range(6, 9), "9-10": range(9, 11), "11-12": range(11, 13)}
    scores = {name: [e.score for e in episodes if len(e.task.rows) in band] for name, band in bands.items()}
    return {name: round(fmean(values), 3) for name, values in scores.items() if values}


def evaluate(
    model: SeedModel,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[tuple[World, Task]],
    *,
    temperature: float,
    budget: Budget | None = None,
    single: bool = False,
) -> list[Episode]:
    """Play each task once; the same samples for the same policy and tasks."""
    return Player(model, tokenizer, budget or Budget(), temperature, seed=123).play(tasks, single=single)


def measure(folder: Path, count: int) -> dict[str, dict[str, float]]:
    """The figures of the model card: greedy, at the rollout temperature, alone, and by width and by size."""
    model, tokenizer = load_policy(folder)
    tasks = held_out(count)
    greedy = evaluate(model, tokenizer, tasks, temperature=0.0)
    sampled = evaluate(model, tokenizer, tasks, temperature=ROLLOUT_TEMPERATURE)
    alone = evaluate(model, tokenizer, tasks, temperature=0.0, single=True)
    figures = {
        "greedy": summary(greedy, tokenizer),
        "sampled": summary(sampled, tokenizer),
        "single": {
            "score": round(fmean(e.score for e in alone), 4),
            "error": round(stdev(e.score for e in alone) / len(alone) ** 0.5, 4),
        },
        "greedy by rows": by_size(greedy),
        "sampled by rows": by_size(sampled),
        "single by rows": by_size(alone),
    }
    for temperature, name in ((0.0, "greedy"), (ROLLOUT_TEMPERATURE, "sampled")):
        figures[f"{name} by subagents"] = {
            str(width): round(fmean(e.score for e in _at_width(model, tokenizer, tasks, temperature, width)), 3)
            for width in (1, 2, 4, 8)
        }
    return figures


def _at_width(
    model: SeedModel,
    tokenizer: PreTrainedTokenizerFast,
    tasks: Sequence[tuple[World, Task]],
    temperature: float,
    width: int,
) -> list[Episode]:
    return evaluate(model, tokenizer, tasks, temperature=temperature, budget=Budget(subagents=width))
