"""Assembly, rewards, batches, tasks, configurations, checkpoints: what needs no server."""

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.lead.v1 import lead_service_pb2 as lead
from wideseek_kit.testing import eventually
from wideseek_trainer import wire
from wideseek_trainer.core.assemble import Assembler
from wideseek_trainer.core.batch import Group, make_batch
from wideseek_trainer.core.checkpoint import Checkpoints, Progress
from wideseek_trainer.core.collect import Collector, step_of
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.consume import Consumer
from wideseek_trainer.core.errors import CheckpointError, ConfigError, TaskSetError
from wideseek_trainer.core.ports import Delivery
from wideseek_trainer.core.reward import DEFAULT_WEIGHTS, reward
from wideseek_trainer.core.sequences import agent_sequences
from wideseek_trainer.core.staleness import may_start, staleness
from wideseek_trainer.core.tasks import Task, parse_task_set
from wideseek_trainer.core.trajectory import Episode, Event, Place, Span, Stop, Turn
from wideseek_trainer.testing import scripted_log, task_line


def log_of(index: int = 0, version: int = 0, group: str = "run/1/0") -> list[Event]:
    tag = events.TrainingTag(run_id="run", group_id=group, task_id="task-0", group_size=2, index=index)
    request = lead.CreateEpisodeRequest(request_id=f"{group}/{index}", question="q", training=tag)
    places = [(message, wire.place(message, "run")) for message in scripted_log(request, f"ep{group}{index}", version)]
    return [wire.event(message, place) for message, place in places if place]


def episode_of(index: int = 0, version: int = 0, group: str = "run/1/0") -> Episode:
    assembler = Assembler()
    found = [assembler.add(event) for event in log_of(index, version, group)]
    assert isinstance(found[-1], Episode)
    return found[-1]


def task(number: int = 0) -> Task:
    return parse_task_set(json.dumps(task_line(number)).encode(), "tasks").tasks[0]


def config(**fields: Any) -> RunConfig:
    return RunConfig(**{"task_set_uri": "tasks.jsonl", **fields})


@given(st.permutations(list(range(10)) * 2))
def test_trainer_assembles_any_order_with_repeats(order: Sequence[int]) -> None:
    log, assembler = log_of(), Assembler()
    assert len(log) == 10
    found = [episode for index in order if (episode := assembler.add(log[index])) is not None]
    assert len(found) == 1
    assert {agent: len(turns) for agent, turns in found[0].turns.items()} == {"lead": 2, "s1": 2}
    assert [turn.number for turn in found[0].turns["lead"]] == [1, 2]
    assert assembler.duplicates == 10
    assert assembler.open == 0


@pytest.mark.parametrize("missing", range(10))
def test_trainer_incomplete_logs_wait(missing: int) -> None:
    assembler = Assembler()
    assert [assembler.add(event) for event in log_of() if event.sequence != missing + 1] == [None] * 9
    assert assembler.open == 1


def test_trainer_other_runs_events_have_no_place() -> None:
    tag = events.TrainingTag(run_id="other", group_id="other/1/0")
    assert wire.place(events.TrajectoryEvent(training=tag), "run") is None
    assert wire.place(events.TrajectoryEvent(), "run") is None
    assert step_of("run/12/3") == 12


def test_trainer_one_sequence_an_agent_masked_to_its_output() -> None:
    episode = episode_of()
    lead_sequence, sub_sequence = agent_sequences(episode)
    first, second = episode.turns["lead"]
    expected = [*first.prompt, *first.output, *second.prompt, *second.output]
    assert lead_sequence.tokens.tolist() == expected
    assert lead_sequence.tokens[lead_sequence.mask > 0].tolist() == [*first.output, *second.output]
    assert lead_sequence.logprobs[lead_sequence.mask > 0].tolist() == [*first.logprobs, *second.logprobs]
    assert sub_sequence.agent == "s1"


def test_trainer_untrainable_turns_are_masked_out() -> None:
    episode = episode_of()
    first, second = episode.turns["lead"]
    turns = {**episode.turns, "lead": (first, replace(second, trainable=False))}
    (sequence, _) = agent_sequences(replace(episode, turns=turns))
    assert sequence.output_tokens == len(first.output)
    assert len(sequence.tokens) == sum(len(part) for turn in (first, second) for part in (turn.prompt, turn.output))
    empty = replace(second, prompt=np.zeros(0, np.int32), output=np.zeros(0, np.int32))
    (sequence, _) = agent_sequences(replace(episode, turns={**turns, "lead": (first, empty)}))
    assert len(sequence.tokens) == len(first.prompt) + len(first.output)
    assert agent_sequences(replace(episode, stop=Stop.LEAD_LOST)) == []


def test_trainer_reward_terms() -> None:
    right = reward(replace(episode_of(), answer=f"```markdown\n{task().accepted[0]}\n```"), task(), DEFAULT_WEIGHTS, 0)
    assert right.terms == {"item_f1": 1.0, "format": 1.0, "access": 1.0, "length": 0.0}
    assert right.total == pytest.approx(1.15)
    assert reward(replace(episode_of(), answer="none"), task(), DEFAULT_WEIGHTS, 0).total == pytest.approx(0.05)
    half = reward(episode_of(0), task(), DEFAULT_WEIGHTS, 0)
    assert 0 < half.terms["item_f1"] < 1


@pytest.mark.parametrize(
    "failure", [{"stop": Stop.FAILED}, {"stop": Stop.CANCELLED}, {"stop": Stop.LEAD_LOST}, {"main_failed": True}]
)
def test_trainer_failures_earn_nothing_even_with_a_right_answer(failure: dict[str, Any]) -> None:
    answer = f"```markdown\n{task().accepted[0]}\n```"
    failed = reward(replace(episode_of(), answer=answer, **failure), task(), DEFAULT_WEIGHTS, 0)
    assert failed.total == 0
    assert set(failed.terms.values()) == {0.0}


def test_trainer_length_term_rises_to_the_limit() -> None:
    episode = episode_of()
    (turn, *_) = episode.turns["s1"]

    def term(**changes: Any) -> float:
        turns: dict[str, tuple[Turn, ...]] = {"s1": (replace(turn, **changes),)}
        return reward(replace(episode, turns=turns), task(), DEFAULT_WEIGHTS, 100).terms["length"]

    assert term(output=np.zeros(80, np.int32)) == 0
    assert term(output=np.zeros(90, np.int32)) == pytest.approx(0.5)
    assert term(output=np.zeros(100, np.int32)) == pytest.approx(1)
    assert term(cut_short=True) == 1


def test_trainer_boxed_answers() -> None:
    line = {"question": "q", "answer": ["Paris", "City of Paris"], "instance_id": "b"}
    boxed = parse_task_set(json.dumps(line).encode(), "tasks").tasks[0]
    assert not boxed.is_markdown
    exact = reward(replace(episode_of(), answer=r"It is \boxed{paris}."), boxed, DEFAULT_WEIGHTS, 0)
    assert exact.terms["item_f1"] == 1
    assert reward(replace(episode_of(), answer="Paris"), boxed, DEFAULT_WEIGHTS, 0).terms["format"] == 0


def version_turn(version: int, trainable: bool = True) -> Turn:
    two = np.ones(2, np.int32)
    return Turn("lead", 1, two, two, np.zeros(2, np.float32), (Span(version, 0, 2),), trainable, False, 0)


def test_trainer_staleness_looks_at_the_oldest_version() -> None:
    def of(*turns: Turn) -> int | None:
        episode = replace(episode_of(), turns={"lead": turns})
        return staleness(episode, {4: 0, 7: 1, 8: 2}, updates_done=2)

    assert of(version_turn(8)) == 0
    assert of(version_turn(8), version_turn(4)) == 2
    assert of(version_turn(8), version_turn(4, trainable=False)) == 0
    assert of(version_turn(8), version_turn(5)) is None, "5 is foreign to the run"
    assert [may_start(step, 2, 1) for step in (3, 4, 5)] == [True, True, False]
    assert [may_start(step, 2, 0) for step in (3, 4)] == [True, False]


def test_trainer_an_episode_that_was_lost_is_compared_with_nobody() -> None:
    both = (episode_of(0), episode_of(1))
    lost = replace(episode_of(2), stop=Stop.LEAD_LOST)
    alone = make_batch([Group("run/1/0", task(0), both)], config(), {0: 0}, 0, "seed")
    beside = make_batch([Group("run/1/0", task(0), (*both, lost))], config(), {0: 0}, 0, "seed")
    assert [one.advantage for one in beside.sequences] == [one.advantage for one in alone.sequences]
    assert [one.weight for one in beside.sequences] == [one.weight for one in alone.sequences]
    assert beside.counters.episodes_failed == 1
    single = make_batch([Group("run/1/0", task(0), (both[0], lost, lost))], config(), {0: 0}, 0, "seed")
    assert single.counters.groups_without_signal == 1


def test_trainer_batch_accounts_for_every_group() -> None:
    signal = Group("run/1/0", task(0), (episode_of(0), episode_of(1)))
    flat = Group("run/1/1", task(0), (episode_of(0, group="run/1/1"),) * 2)
    stale = Group("run/1/2", task(0), (episode_of(0, version=5), episode_of(1)))
    unreadable = Group("run/1/3", task(0), signal.episodes, unreadable=1)
    batch = make_batch([signal, flat, stale, unreadable], config(), {0: 0}, 0, "seed")
    assert (batch.counters.groups_trained, batch.counters.groups_without_signal, batch.counters.groups_stale) == (
        1,
        1,
        1,
    )
    assert sum(one.weight * int(one.mask.sum()) for one in batch.sequences) == pytest.approx(1)
    assert len(batch.sequences) == 4
    values = [one.advantage for one in batch.sequences]
    assert values[0] == values[1] == pytest.approx(-values[2])
    assert values[2] == values[3] != 0
    assert batch.metrics["episodes"] == 8
    assert batch.metrics["output_tokens"] == sum(int(one.mask.sum()) for one in batch.sequences)


def test_trainer_too_stale_groups_are_left_out() -> None:
    group = Group("run/1/0", task(0), (episode_of(0), episode_of(1)))
    versions = {0: 0, 1: 1, 2: 2, 3: 3}
    assert make_batch([group], config(max_staleness=3), versions, 3, "").counters.groups_trained == 1
    late = make_batch([group], config(max_staleness=2), versions, 3, "")
    assert (late.counters.groups_stale, late.sequences) == (1, [])


def test_trainer_shuffled_advantages_are_the_same_values() -> None:
    groups = [
        Group(f"run/1/{n}", task(0), (episode_of(0, group=f"run/1/{n}"), episode_of(1, group=f"run/1/{n}")))
        for n in range(6)
    ]
    plain = make_batch(groups, config(), {0: 0}, 0, "1")
    control = make_batch(groups, config(shuffle_advantages=True), {0: 0}, 0, "1")
    assert sorted(s.advantage for s in plain.sequences) == pytest.approx(sorted(s.advantage for s in control.sequences))
    assert [s.advantage for s in plain.sequences] != [s.advantage for s in control.sequences]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2, -: not JSON"),
        ("[]", "line 2, -: not a JSON object"),
        ('{"answer": "x"}', "line 2, question: missing"),
        ('{"question": "q"}', "line 2, answer:"),
        ('{"question": "q", "answer": "no table", "is_markdown": true}', "line 2, answer: holds no table"),
        (json.dumps({**task_line(1), "unique_columns": ["shoe"]}), "line 2, unique_columns: 'shoe'"),
        (json.dumps({**task_line(1), "columns": "name"}), "line 2, columns: not a list"),
        (json.dumps(task_line(0)), "line 2, instance_id: 'task-0' stands on an earlier line"),
    ],
)
def test_trainer_task_errors_name_file_line_and_field(line: str, words: str) -> None:
    with pytest.raises(TaskSetError, match="tasks.jsonl") as caught:
        parse_task_set(f"{json.dumps(task_line(0))}\n{line}\n".encode(), "tasks.jsonl")
    assert words in caught.value.message


def test_trainer_task_order_is_seeded_and_whole() -> None:
    tasks = parse_task_set("\n".join(json.dumps(task_line(n)) for n in range(5)).encode(), "tasks")
    asked = [one.task_id for step in range(1, 6) for one in tasks.for_step(step, 2, seed=3)]
    assert sorted(asked[:5]) == sorted(asked[5:]) == [f"task-{n}" for n in range(5)]
    assert asked[:5] != asked[5:]
    assert [one.task_id for one in tasks.for_step(2, 2, seed=3)] == asked[2:4]
    assert [one.task_id for one in tasks.for_step(2, 2, seed=4)] != asked[2:4]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task_set_uri": ""}, "config.task_set_uri: is empty"),
        ({"steps": 0}, "config.steps: 0 is not between 1"),
        ({"group_size": 1}, "config.group_size: 1 is not between 2"),
        ({"learning_rate": 0.0}, "config.learning_rate: 0.0"),
        ({"learning_rate": float("nan")}, "config.learning_rate: nan"),
        ({"kl_coefficient": -1.0}, "config.kl_coefficient: -1.0"),
        ({"temperature": 0.0}, "config.episode.sampling.temperature: 0.0"),
        ({"max_episodes_in_flight": 0}, "config.max_episodes_in_flight: 0"),
        ({"reward_weights": {"beauty": 1.0}}, "config.reward_weights: no term 'beauty'"),
    ],
)
def test_trainer_config_errors_name_field_and_figure(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**fields)
    assert words in caught.value.message


class StaticLog:
    """Batches of deliveries, then silence."""

    def __init__(self, *batches: list[Delivery]) -> None:
        self.batches, self.acknowledged, self.silent = list(batches), list[int](), False

    async def fetch(self) -> Sequence[Delivery]:
        if not self.batches:
            self.silent = True
            await asyncio.sleep(60)
        return self.batches.pop(0)

    async def acknowledge(self, sequences: Sequence[int]) -> None:
        self.acknowledged += sequences


async def consumed(log: StaticLog, done: int = 0) -> tuple[Consumer, Collector]:
    collector = Collector()
    consumer = Consumer(log, collector, watermark=0, done=done)  # type: ignore[arg-type]
    task = asyncio.create_task(consumer.run())
    await eventually(lambda: log.silent)
    task.cancel()
    return consumer, collector


def deliver(log: list[Event], first: int) -> list[Delivery]:
    return [Delivery(first + n, event.episode, event.place, event) for n, event in enumerate(log)]


async def test_trainer_watermark_stays_below_what_waits() -> None:
    one, two = deliver(log_of(0), 10), deliver(log_of(0, group="run/2/0"), 15)
    mixed = [*one[:5], *two[:5]]
    rest = [replace(d, sequence=20 + n) for n, d in enumerate(one[5:])]
    foreign = [Delivery(30, "other")]
    consumer, collector = await consumed(log := StaticLog(mixed, rest, foreign))
    assert log.acknowledged == [30]
    assert collector.ended(Place("run/1/0", 0, 2)).is_set()
    finished, watermark = consumer.finish(1)
    assert sorted(finished) == [10, 11, 12, 13, 14, 20, 21, 22, 23, 24]
    assert watermark == 14, "15 to 19 belong to step 2"
    assert consumer.finish(2) == ([15, 16, 17, 18, 19], 30)


async def test_trainer_events_of_trained_steps_are_passed_over() -> None:
    consumer, collector = await consumed(log := StaticLog(deliver(log_of(0), 1)), done=1)
    assert log.acknowledged == list(range(1, 11))
    assert consumer.drain_counts() == (0, 10)
    assert not collector.ended(Place("run/1/0", 0, 2)).is_set()


async def test_trainer_newer_events_spoil_their_group_and_are_counted() -> None:
    place = Place("run/1/0", 0, 1)
    newer = [Delivery(1, "ep", place, None, newer=True), Delivery(2, "elsewhere", None, None, newer=True)]
    consumer, collector = await consumed(log := StaticLog(newer))
    assert log.acknowledged == [2], "an event of ours is kept until its step is done"
    (group,) = await collector.take_step("run", 1, [task()], 1)
    assert group.unreadable == 1
    assert consumer.drain_counts() == (2, 0)
    assert consumer.finish(1) == ([1], 2)


async def test_trainer_checkpoints_are_whole_or_absent(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None

    async def save(directory: Path) -> None:
        (directory / "weights").write_text("w")

    async def die(directory: Path) -> None:
        await save(directory)
        raise KeyboardInterrupt

    progress = Progress(1, 40, 3, "abc", consumed=["run/1/0"], versions={0: 0, 3: 1}, metrics={"loss": 0.5})
    await checkpoints.commit(progress, save)
    assert checkpoints.latest() == progress
    with pytest.raises(KeyboardInterrupt):
        await checkpoints.commit(replace(progress, step=2), die)
    assert checkpoints.latest() == progress
    assert not checkpoints.published(1)
    checkpoints.mark_published(1)
    assert checkpoints.published(1)
    for step in (2, 3):
        await checkpoints.commit(replace(progress, step=step), save)
    assert sorted(os.listdir(tmp_path)) == ["LATEST", "step-00000002", "step-00000003"]
    (checkpoints.directory(3) / "state.json").write_text('{"schema": 9}')
    with pytest.raises(CheckpointError, match="schema 9"):
        checkpoints.latest()
