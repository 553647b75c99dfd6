"""docs/learning.md, docs/learning.json and the figures, from what was measured.

Invariant: every figure on the page is computed from the phases' files; what was not run is not on the page.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wideseek_cli.lab.statistics import mean, paired, quantile, standard_error
from wideseek_cli.learn.plots import learning_curve, width_curve

_HEAD = """# Does it learn?

Written by `make learn` on {cores} CPU cores, without a GPU; [learning.json](learning.json) has the figures behind it.
`wideseek learn --phase NAME` runs one phase again, `wideseek learn --report` only redraws.

The policy is the seed policy of the atlas, which copies well and plans badly on purpose: its demonstrations mixed good
and bad habits, and reinforcement learning selects among them. It does not learn to read or to copy here. Held-out
questions come from worlds that no training question and no demonstration was drawn from.
"""


def write_report(results: dict[str, Any], directory: Path) -> None:
    """Write page, figures and JSON into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = [_HEAD.format(cores=os.cpu_count())]
    if "train" in results:
        learning_curve(results, directory / "figures" / "learning.png")
        parts.append(_training(results["train"]))
    if "heldout" in results:
        parts.append(_heldout(results["heldout"]))
    if "control" in results:
        parts.append(_control(results))
    if "width" in results:
        width_curve(results, directory / "figures" / "width.png")
        parts.append(_width(results["width"]))
    if "modes" in results:
        parts.append(_modes(results["modes"]))
    (directory / "learning.md").write_text("\n".join(parts))
    (directory / "learning.json").write_text(json.dumps(_compact(results), indent=1) + "\n")


def _training(train: dict[str, Any]) -> str:
    pauses = sorted(1e3 * pause for pause in train["pauses"])
    p50, p95, longest = (quantile(pauses, q) for q in (0.5, 0.95, 1.0))
    updates, seconds = len(train["versions"]), train["wall_clock"]
    return f"""## Training

![item-F1 against updates](figures/learning.png)

{updates} updates of 8 questions × 8 episodes took {seconds / 60:.1f} minutes, {seconds / updates:.1f} s an update.
Each put new weights into the running engine, which paused for {p50:.0f} ms (median; p95 {p95:.0f} ms, longest
{longest:.0f} ms). Requests lost: {train["requests_lost"]}.
"""


def _heldout(heldout: dict[str, Any]) -> str:
    rows = [
        (
            {"rollout": "0.7, as in training", "greedy": "greedy"}[name],
            *(_with_error(heldout[name][policy]["item_f1"]) for policy in ("seed", "trained")),
            str(paired(heldout[name]["seed"]["item_f1"], heldout[name]["trained"]["item_f1"])),
        )
        for name in ("rollout", "greedy")
    ]
    count = len(heldout["greedy"]["seed"]["item_f1"])
    table = _table(("temperature", "seed policy", "trained policy", "paired difference"), rows)
    return f"## Before and after\n\nMean item-F1 ± standard error on the same {count} held-out questions.\n\n{table}\n"


def _control(results: dict[str, Any]) -> str:
    runs = results["control"]["runs"]
    text = f"""## The control

The same loop with the advantages shuffled over the batch, in {len(runs)} runs of {len(runs[0]["versions"])} updates on
questions of their own. What is left is the noise of the gradient; a policy drifts by it, for nothing pulls it back.

"""
    rows = []
    for name, title in (("rollout", "0.7"), ("greedy", "greedy")):
        means = [mean(run[name]["item_f1"]) for run in runs]
        row = [title, ", ".join(f"{one:.3f}" for one in means)]
        if "heldout" in results:
            seed = mean(results["heldout"][name]["seed"]["item_f1"])
            gains = [one - seed for one in means]
            row += [", ".join(f"{gain:+.3f}" for gain in gains), f"{mean(gains):+.3f} ± {standard_error(gains):.3f}"]
        rows.append(row)
    head = ["temperature", "item-F1 of each run"]
    if "heldout" in results:
        head += ["difference to the seed", "mean ± standard error over the runs"]
    return text + _table(head, rows) + "\n"


def _width(width: dict[str, Any]) -> str:
    rows = []
    for name, title in (("greedy", "greedy"), ("rollout", "0.7")):
        for policy in ("seed", "trained"):
            for key, what in (("item_f1", "item-F1"), ("episode_seconds", "seconds an episode")):
                rows.append((title, policy, what, *(_with_error(one[key]) for one in width[name][policy])))
    head = ("temperature", "policy", "", *(f"≤ {width_} subagents" for width_ in width["widths"]))
    count = len(width["greedy"]["seed"][0]["item_f1"])
    return f"""## Width

![item-F1 and seconds against subagents](figures/width.png)

{count} held-out questions, four episodes at a time; mean ± standard error.

{_table(head, rows)}
"""


def _modes(modes: dict[str, Any]) -> str:
    rows = [
        (
            policy,
            *(_with_error(modes[policy][mode]["item_f1"]) for mode in ("multi", "single")),
            str(paired(modes[policy]["single"]["item_f1"], modes[policy]["multi"]["item_f1"])),
            " / ".join(f"{mean(modes[policy][mode]['episode_seconds']):.1f} s" for mode in ("multi", "single")),
        )
        for policy in ("seed", "trained")
    ]
    head = ("policy", "many agents", "one agent", "paired difference", "time an episode, many / one")
    return f"""## Many agents or one

Item-F1, greedy, the same questions and weights. The one agent is a weak opponent: the seed policy saw that mode in a
tenth of its demonstrations, for up to 8 rows, and was trained on many-agent episodes only.

{_table(head, rows)}
"""


def _with_error(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ± {standard_error(values):.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _compact(value: Any) -> Any:
    """Figures with four significant places behind the point, so that the file can be read."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    return [_compact(item) for item in value] if isinstance(value, list) else value
