"""Writes the seed policy's model card from measured figures: `python -m wideseek_atlas.seed.card POLICY`."""

import argparse
import json
from pathlib import Path
from string import Template

from wideseek_atlas.habits import SEED_MIXTURE
from wideseek_atlas.seed.checkpoint import load_policy
from wideseek_atlas.seed.evaluate import measure
from wideseek_atlas.seed.progress import say

_CARD = Path(__file__).with_name("card.md.template")
_HABITS = ("cut", "few", "cram", "read", "drop", "wrong", "table", "subagents", "faultless")


def write_card(folder: Path, figures: dict[str, dict[str, float]], tasks: int, made: str) -> None:
    """Write `README.md` beside the weights."""
    model, tokenizer = load_policy(folder)
    plays = [
        f"| {name} | {figures[key]['score']:.3f} ± {figures[key]['error']:.3f} |"
        for name, key in (("greedy", "greedy"), ("temperature 0.7", "sampled"), ("greedy, one agent alone", "single"))
    ]
    habits = [f"| {h} | {figures['greedy'].get(h, 0):.2f} | {figures['sampled'].get(h, 0):.2f} |" for h in _HABITS]
    text = Template(_CARD.read_text("utf-8")).substitute(
        parameters=f"{sum(p.numel() for p in model.parameters()):,}",
        vocabulary=f"{len(tokenizer):,}",
        tasks=tasks,
        scores="\n".join(plays),
        rows=_table("rows", figures, "by rows"),
        widths=_table("subagents", figures, "by subagents"),
        habits="\n".join(habits),
        mixture=", ".join(f"{name} {value}" for name, value in vars(SEED_MIXTURE).items()),
        made=made,
    )
    (folder / "README.md").write_text(text, "utf-8")


def _table(what: str, figures: dict[str, dict[str, float]], suffix: str) -> str:
    named = {name.removesuffix(f" {suffix}"): row for name, row in figures.items() if name.endswith(suffix)}
    heads = list(next(iter(named.values())))
    lines = [f"| {what} | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    lines += [f"| {name} | {' | '.join(f'{row[h]:.3f}' for h in heads)} |" for name, row in named.items()]
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m wideseek_atlas.seed.card", description=__doc__)
    parser.add_argument("policy", type=Path)
    parser.add_argument("--tasks", type=int, default=128, help="held-out tasks to play")
    parser.add_argument("--made", default="`make seed-policy`", help="the command that made it")
    options = parser.parse_args()
    figures = measure(options.policy, options.tasks)
    say(json.dumps(figures, indent=1))
    write_card(options.policy, figures, options.tasks, options.made)


if __name__ == "__main__":
    main()
