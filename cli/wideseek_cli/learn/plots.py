"""The curves, as PNGs. Axes carry units, points their 95 % intervals, the control is grey."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wideseek_cli.lab.statistics import interval, mean

mpl.use("Agg")

# Colours that stay apart for colour-blind eyes (Okabe and Ito, 2008).
_SEED, _TRAINED, _CONTROL = "#E69F00", "#0072B2", "#999999"
_DPI = 150


def learning_curve(results: dict[str, Any], path: Path) -> None:
    """Item-F1 against updates: the training episodes, the held-out questions, the control."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    train = results["train"]["item_f1"]
    axes.plot(range(len(train)), train, color=_TRAINED, alpha=0.45, label="training questions, each update's episodes")
    if "curve" in results:
        _points(axes, results["curve"]["updates"], results["curve"]["rollout"], _TRAINED, "held-out questions")
    if "control" in results:
        for index, run in enumerate(results["control"]["runs"]):
            label = "control: advantages shuffled" if index == 0 else None
            steps = range(len(run["item_f1"]))
            axes.plot(steps, run["item_f1"], color=_CONTROL, linestyle="--", linewidth=1, label=label)
            held = "control, held-out questions" if index == 0 else None
            _points(axes, [len(run["item_f1"])], [run["rollout"]], _CONTROL, held)
    axes.set(
        xlabel="updates made (8 questions × 8 episodes each)", ylabel="mean item-F1", ylim=(0, 1), xlim=(-0.5, None)
    )
    axes.set_title("Reinforcement learning on multi-agent episodes, temperature 0.7")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    _finish(figure, path)


def width_curve(results: dict[str, Any], path: Path) -> None:
    """Item-F1 and seconds an episode against the most subagents, seed and trained."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    figures = results["width"]
    for policy, colour in (("seed", _SEED), ("trained", _TRAINED)):
        asked = figures["greedy"][policy]
        _points(left, figures["widths"], asked, colour, f"{policy} policy", line=True)
        _points(right, figures["widths"], asked, colour, f"{policy} policy", key="episode_seconds", line=True)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(figures["widths"], [str(width) for width in figures["widths"]])
        axes.set_xlabel("subagents allowed an episode")
    left.set(ylabel="mean item-F1", ylim=(0, 1), title="What more subagents are worth (greedy)")
    right.set(ylabel="mean seconds an episode", ylim=(0, None), title="What they cost: wall-clock time")
    left.legend(frameon=False)
    right.legend(frameon=False)
    _finish(figure, path)


def _points(
    axes: Axes,
    xs: Sequence[float],
    asked: Sequence[dict[str, Any]],
    colour: str,
    label: str | None,
    *,
    key: str = "item_f1",
    line: bool = False,
) -> None:
    means = [mean(one[key]) for one in asked]
    bounds = [interval(one[key], resamples=2000) for one in asked]
    below = [max(0.0, centre - low) for centre, (low, _) in zip(means, bounds, strict=True)]
    above = [max(0.0, high - centre) for centre, (_, high) in zip(means, bounds, strict=True)]
    style = "o-" if line else "o"
    axes.errorbar(
        xs, means, yerr=[below, above], fmt=style, color=colour, capsize=3, label=label and f"{label} (95 % interval)"
    )


def _finish(figure: Figure, path: Path) -> None:
    for one in figure.axes:
        one.grid(alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
