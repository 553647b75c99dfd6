"""Statistics by hand, evaluation against a lead of this process, the report from made-up figures."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_atlas import Split, Task
from wideseek_cli.lab.evaluation import Setup, evaluate, score
from wideseek_cli.lab.statistics import interval, mean, paired, quantile, standard_error
from wideseek_cli.lab.worlds import WorldSet
from wideseek_cli.learn.report import write_report
from wideseek_cli.learn.store import MissingPhaseError, Phase, Results
from wideseek_client import Client, Endpoints

FLOATS = st.lists(st.floats(-1, 1), min_size=1, max_size=20)


def test_statistics_by_hand() -> None:
    assert mean([1, 2, 6]) == 3
    assert standard_error([1, 2, 6]) == pytest.approx((7 / 3) ** 0.5)
    assert [quantile([0, 10, 20], q) for q in (0, 0.25, 0.5, 1)] == [0, 5, 10, 20]
    assert (mean([]), standard_error([1]), quantile([], 0.5)) == (0, 0, 0)


def test_a_paired_difference_looks_at_pairs() -> None:
    before = [0.1 * i for i in range(10)]
    found = paired(before, [value + 0.2 for value in before])
    assert (found.mean, found.error, found.low, found.high) == pytest.approx((0.2, 0, 0.2, 0.2), abs=1e-9)
    assert str(found) == "+0.200 ± 0.000 (95 % interval +0.200 to +0.200)"
    with pytest.raises(ValueError, match="2 figures before and 1 after do not pair up"):
        paired([1, 2], [1])


@given(FLOATS)
def test_the_interval_is_seeded_and_within_the_values(values: list[float]) -> None:
    low, high = interval(values, resamples=50)
    assert interval(values, resamples=50) == (low, high)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(200):
        low, high = interval([rng.gauss(0.5, 0.2) for _ in range(60)], resamples=200)
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 199


def test_a_larger_set_of_questions_begins_with_the_smaller_one() -> None:
    small, large = WorldSet.draw(Split.HELDOUT, 3, 2), WorldSet.draw(Split.HELDOUT, 8, 2)
    assert large.tasks[:3] == small.tasks
    assert (len(small.worlds), len(large.worlds)) == (2, 4)
    training = WorldSet.draw(Split.TRAIN, 8, 2)
    assert not {task.question for task in training.tasks} & {task.question for task in large.tasks}


@pytest.fixture(scope="module")
def tasks() -> tuple[Task, ...]:
    return WorldSet.draw(Split.HELDOUT, 5, 1).tasks


def test_the_gold_answer_scores_one_and_a_failed_episode_zero(tasks: tuple[Task, ...]) -> None:
    answer = pb.Answer(text=f"```markdown\n{tasks[0].answer}\n```")
    assert score(pb.Episode(state=pb.Episode.STATE_SUCCEEDED, answer=answer), tasks[0]) == 1.0
    assert score(pb.Episode(state=pb.Episode.STATE_FAILED, answer=answer), tasks[0]) == 0.0


async def test_outcomes_come_in_the_order_of_the_tasks(suite: Any, tasks: tuple[Task, ...]) -> None:
    done: list[str] = []
    async with Client(Endpoints(lead=suite.environment["WIDESEEK_LEAD_TARGET"])) as client:
        setup = Setup(0.7, max_subagents=2)
        outcomes = await evaluate(client, tasks, setup, concurrency=2, on_done=lambda one: done.append(one.task_id))
    assert [outcome.task_id for outcome in outcomes] == [task.instance_id for task in tasks]
    assert sorted(done) == sorted(task.instance_id for task in tasks)
    assert [outcome.seconds for outcome in outcomes] == [2.5] * 5
    asked = {request.options.corpus: request for request in suite.lead.created}
    assert {task.corpus: task.question for task in tasks} == {c: request.question for c, request in asked.items()}
    assert all(request.options.limits.max_subagents == 2 for request in suite.lead.created)


def _asked(level: float) -> dict[str, Any]:
    rng = random.Random(level)
    scores = [min(1.0, max(0.0, rng.gauss(level, 0.2))) for _ in range(20)]
    return {"item_f1": scores, "episode_seconds": [1 + one for one in scores], "failed": 0, "all_seconds": 9.0}


def _results() -> dict[Phase, dict[str, Any]]:
    curve = [0.2, 0.4, 0.6, 0.8]
    train = {
        "versions": [1, 2, 3, 4],
        "item_f1": curve,
        "wall_clock": 120.0,
        "pauses": [0.02, 0.03],
        "requests_lost": 0,
    }
    both = {"seed": _asked(0.4), "trained": _asked(0.8)}
    four = {"seed": [_asked(0.3)] * 4, "trained": [_asked(x) for x in curve]}
    one = {"multi": _asked(0.8), "single": _asked(0.4)}
    return {
        Phase.TRAIN: train,
        Phase.HELDOUT: {"rollout": both, "greedy": both},
        Phase.CURVE: {"updates": [0, 2, 4], "rollout": [_asked(x) for x in (0.4, 0.6, 0.8)]},
        Phase.WIDTH: {"widths": [1, 2, 4, 8], "greedy": four, "rollout": four},
        Phase.MODES: {"seed": one, "trained": one},
        Phase.CONTROL: {
            "runs": [
                {"versions": [5, 6], "item_f1": [0.3, level], "rollout": _asked(level), "greedy": _asked(level)}
                for level in (0.2, 0.5)
            ]
        },
    }


def test_phases_that_are_done_are_kept(tmp_path: Path) -> None:
    results = Results(tmp_path / "results")
    with pytest.raises(MissingPhaseError, match="no figures of phase train yet"):
        results.read(Phase.TRAIN)
    results.write(Phase.TRAIN, {"a": [1, 2.5]})
    assert Results(tmp_path / "results").all() == {"train": {"a": [1, 2.5]}}


def test_the_report_holds_figures_of_every_phase(tmp_path: Path) -> None:
    figures = {phase.value: found for phase, found in _results().items()}
    write_report(figures, tmp_path)
    page = (tmp_path / "learning.md").read_text()
    seed, trained = (figures["heldout"]["greedy"][name]["item_f1"] for name in ("seed", "trained"))
    assert f"| greedy | {mean(seed):.3f} ± {standard_error(seed):.3f} |" in page
    assert str(paired(seed, trained)) in page
    before = mean(_results()[Phase.HELDOUT]["rollout"]["seed"]["item_f1"])
    gains = [mean(_asked(level)["item_f1"]) - before for level in (0.2, 0.5)]
    assert f"| {gains[0]:+.3f}, {gains[1]:+.3f} | {mean(gains):+.3f} ± {standard_error(gains):.3f} |" in page
    for title in ("## Training", "## Before and after", "## The control", "## Width", "## Many agents or one"):
        assert title in page
    for name in ("learning.png", "width.png"):
        assert (tmp_path / "figures" / name).stat().st_size > 10_000
    assert json.loads((tmp_path / "learning.json").read_text())["width"]["widths"] == [1, 2, 4, 8]


def test_what_was_not_run_is_not_on_the_page(tmp_path: Path) -> None:
    write_report({"heldout": _results()[Phase.HELDOUT]}, tmp_path)
    assert "## Width" not in (tmp_path / "learning.md").read_text()
    assert not (tmp_path / "figures").exists()
