"""The whole suite as real processes: episodes token for token, deaths in mid-episode, training with swaps."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wideseek_atlas
from transformers import AutoTokenizer, Qwen3ForCausalLM
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.lead.v1 import lead_service_pb2 as lead
from wideseek.trainer.v1 import trainer_service_pb2 as trainer
from wideseek_atlas import Split
from wideseek_cli.home import Home
from wideseek_cli.lab.evaluation import Setup, evaluate, score
from wideseek_cli.lab.worlds import WorldSet, ingest
from wideseek_cli.suite.state import SuiteState, read_state
from wideseek_client import Client
from wideseek_contract import episodes
from wideseek_kit.bus import open_bus

TEMPERATURE = 0.7
pytestmark = pytest.mark.timeout(600)


async def log_of(suite: SuiteState, episode_id: str) -> list[events.TrajectoryEvent]:
    """The log of an ended episode."""
    async with open_bus(suite.nats_url, "test") as bus:
        await bus.connected(10)
        subscription = await bus.jetstream.subscribe(episodes.subject(episode_id), ordered_consumer=True)
        log: list[events.TrajectoryEvent] = []
        while not log or log[-1].WhichOneof("event") != "episode_finished":
            log.append(episodes.decode(await bus.payload(await subscription.next_msg(timeout=10))))
        return log


def conversations(log: list[events.TrajectoryEvent]) -> dict[str, list[events.Turn]]:
    """Each agent's turns in order."""
    turns: dict[str, list[events.Turn]] = {}
    for event in log:
        if event.WhichOneof("event") == "turn":
            turns.setdefault(event.turn.agent_id, []).append(event.turn)
    return turns


async def test_an_episode_is_the_same_tokens_for_the_engine_the_log_and_the_learner(
    suite: SuiteState, client: Client, worlds: WorldSet
) -> None:
    outcomes = await evaluate(client, worlds.tasks[:6], Setup(TEMPERATURE), concurrency=6)
    assert not any(outcome.failed for outcome in outcomes)
    directory = wideseek_atlas.seed_policy_path()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = Qwen3ForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    worst = 0.0
    for outcome in outcomes:
        log = await log_of(suite, outcome.episode_id)
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        assert len({event.event_id for event in log}) == len(log)
        turns = conversations(log)
        expected = {entry.agent_id: entry.turns for entry in log[-1].episode_finished.expected}
        assert {agent: len(of) for agent, of in turns.items()} == {a: n for a, n in expected.items() if n}
        for of in turns.values():
            ids: list[int] = []
            picked: list[int] = []
            sampled: list[float] = []
            for turn in of:
                assert turn.trainable
                assert len(turn.output_logprobs) == len(turn.output_token_ids)
                ids += turn.prompt_token_ids
                picked += range(len(ids), len(ids) + len(turn.output_token_ids))
                sampled += turn.output_logprobs
                ids += turn.output_token_ids
                assert turn.usage.input_tokens == len(ids) - len(turn.output_token_ids)
                covered = [i for span in turn.version_spans for i in range(span.start, span.end)]
                assert covered == list(range(len(turn.output_token_ids)))
                written = tokenizer.decode(turn.output_token_ids, skip_special_tokens=True)
                assert turn.message.content.strip() in written
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].float() / TEMPERATURE
            logprobs = torch.log_softmax(logits, -1)[np.array(picked) - 1, np.array(ids)[picked]]
            worst = max(worst, float((logprobs - torch.tensor(sampled)).abs().max()))
    assert worst < 2e-3, f"engine and learner disagree by {worst} nats"


async def test_a_row_names_the_page_it_came_from(client: Client, worlds: WorldSet) -> None:
    for task in worlds.tasks[:4]:
        episode = await client.ask(task.question, Setup(0).options(task))
        assert episode.state == lead.Episode.STATE_SUCCEEDED
        read = [row for row in episode.answer.rows if row.sources]
        for row in read:
            assert all(source.startswith("https://atlas.test/") for source in row.sources)
        if score(episode, task) > 0.5:
            assert read, "a good table came from pages that were read"
            return
    pytest.fail("the seed policy answered none of four questions half right")


async def test_single_agent_mode_answers(client: Client, worlds: WorldSet) -> None:
    episode = await client.ask(worlds.tasks[0].question, Setup(0, single_agent=True).options(worlds.tasks[0]))
    assert episode.state == lead.Episode.STATE_SUCCEEDED
    assert episode.usage.agents == 1
    assert episode.usage.tool_calls >= 2


@pytest.mark.parametrize("victim", ["subagent", "tools", "lead"])
async def test_a_death_in_mid_episode_ends_in_a_terminal_event(
    suite: SuiteState, client: Client, worlds: WorldSet, home: Home, victim: str
) -> None:
    def options(index: int) -> lead.EpisodeOptions:
        return Setup(TEMPERATURE).options(worlds.tasks[index % len(worlds.tasks)])

    started = [
        await client.create_episode(worlds.tasks[index % len(worlds.tasks)].question, options(index))
        for index in range(24)
    ]
    now = read_state(home.state)
    assert now is not None
    process = now.part(victim).process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    async with asyncio.timeout(120):
        ended = await asyncio.gather(*(client.wait_episode(episode.episode_id) for episode in started))
    reasons = {episode.stop_reason for episode in ended}
    assert events.STOP_REASON_UNSPECIFIED not in reasons
    lost = [episode for episode in ended if episode.stop_reason == events.STOP_REASON_LEAD_LOST]
    if victim == "lead":
        assert lost, "no episode was under way when the lead died: the test did not test"
        assert all(episode.error.message for episode in lost)
    else:
        assert not lost
    for episode in ended[:4]:
        log = await log_of(suite, episode.episode_id)
        assert log[-1].WhichOneof("event") == "episode_finished"
    await _ready_again(home)
    again = await client.ask(worlds.tasks[0].question, options(0))
    assert again.state == lead.Episode.STATE_SUCCEEDED


async def _ready_again(home: Home) -> None:
    async with asyncio.timeout(60):
        while True:
            state = read_state(home.state)
            if state is not None and all(part.phase == "ready" for part in state.parts):
                return
            await asyncio.sleep(0.2)


async def test_training_swaps_weights_under_episodes_and_can_go_back(
    suite: SuiteState, client: Client, worlds: WorldSet, tmp_path: Path
) -> None:
    training = WorldSet.draw(Split.TRAIN, 4, 2)
    await ingest(client, [training])
    task_file = training.write(tmp_path)
    run = await client.create_training_run(
        trainer.TrainingConfig(
            task_set_uri=str(task_file),
            steps=2,
            questions_per_step=2,
            group_size=4,
            episode=lead.EpisodeOptions(sampling=SamplingParams(temperature=TEMPERATURE)),
        )
    )
    asked = 0
    while (await client.get_training_run(run.run_id)).state == trainer.TrainingRun.STATE_RUNNING:
        outcomes = await evaluate(client, worlds.tasks[:4], Setup(TEMPERATURE), concurrency=4)
        assert not any(outcome.failed for outcome in outcomes), "an episode was lost to a swap"
        asked += len(outcomes)
    ended = await client.get_training_run(run.run_id)
    assert ended.state == trainer.TrainingRun.STATE_SUCCEEDED, ended.error.message
    assert ended.steps_done == 2
    assert asked >= 4
    state = await client.get_weight_state()
    assert state.served_version == ended.policy_version
    assert state.requests_lost == 0
    assert len(state.pauses) == state.swaps >= 2
    await client.promote_policy(0)
    async with asyncio.timeout(30):
        while (await client.get_weight_state()).served_version != 0:  # noqa: ASYNC110 -- a process of its own
            await asyncio.sleep(0.1)


async def test_the_command_asks_for_machines(suite: SuiteState, home: Home, worlds: WorldSet, client: Client) -> None:
    task = worlds.tasks[0]
    command = Path(sys.executable).parent / "wideseek"
    process = await asyncio.create_subprocess_exec(
        command,
        "ask",
        task.question,
        "--corpus",
        task.corpus,
        "--columns",
        ",".join(task.columns),
        "--json",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "WIDESEEK_HOME": str(home.root)},
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    answer = json.loads(printed)
    assert task.question in json.dumps(answer)
