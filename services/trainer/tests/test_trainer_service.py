"""The service against a real NATS and a scripted lead."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from safetensors.torch import load_file
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.lead.v1 import lead_service_pb2 as lead
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as rpc
from wideseek_contract import episodes, policies
from wideseek_kit.channels import calling
from wideseek_kit.errors import ServiceError
from wideseek_kit.testing import eventually
from wideseek_trainer.core.ports import Busy, EpisodeRequest, Ports


async def create(stub: rpc.TrainerServiceStub, config: pb.TrainingConfig, request_id: str = "") -> pb.TrainingRun:
    with calling():
        answer = await stub.CreateTrainingRun(pb.CreateTrainingRunRequest(request_id=request_id, config=config))
    return answer.run


async def watch(stub: rpc.TrainerServiceStub, run_id: str, after: int = 0) -> list[pb.WatchTrainingRunResponse]:
    async with asyncio.timeout(30):
        return [m async for m in stub.WatchTrainingRun(pb.WatchTrainingRunRequest(run_id=run_id, after_step=after))]


async def finished(stub: rpc.TrainerServiceStub, run_id: str) -> pb.TrainingRun:
    return (await watch(stub, run_id))[-1].finished


async def test_trainer_run_makes_its_updates_and_publishes_each(stand: Any, serve: Any) -> None:
    async with serve() as stub:
        run = await create(stub, stand.config(), "r")
        messages = await watch(stub, run.run_id)
        assert [m.WhichOneof("event") for m in messages] == ["snapshot", "step", "step", "step", "finished"]
        assert [m.sequence for m in messages] == [1, 2, 3, 4, 5]
        ended = messages[-1].finished
        assert ended.state == pb.TrainingRun.STATE_SUCCEEDED
        assert (ended.steps_done, ended.policy_version, ended.counters.groups_trained) == (3, 3, 6)
        assert ended.config.learning_rate == 3e-4
        assert ended.config.reward_weights["length"] == -0.1
        step = messages[1].step
        for name in (
            "loss",
            "kl",
            "clip_fraction",
            "entropy",
            "grad_norm",
            "staleness_max",
            "output_tokens",
            "item_f1",
        ):
            assert name in step.metrics, name
        assert set(step.seconds) == {"wait", "learn", "checkpoint", "publish"}
        assert [m.WhichOneof("event") for m in await watch(stub, run.run_id, after=2)] == [
            "snapshot",
            "step",
            "finished",
        ]
        again = await create(stub, stand.config(), "r")
        assert again == ended, "the same request gives the same run"

        listed = (await stub.ListPolicies(pb.ListPoliciesRequest())).policies
        assert [(p.version, p.step, p.current) for p in listed] == [
            (3, 3, True),
            (2, 2, False),
            (1, 1, False),
            (0, 0, False),
        ]
        assert listed[0].metrics["item_f1"] > 0
        announced = policies.decode_announcement((await (await stand.bus.bucket("policy")).get("current")).value)
        assert (announced.version, announced.uri) == (3, listed[0].uri)
        manifest = policies.fetch_directory(
            announced.uri, announced.manifest_sha256, Path(stand.settings.state_dir) / "x"
        )
        assert {"model.safetensors", "config.json", "tokenizer_config.json"} <= set(manifest.files)
        first, last = (load_file(f"{listed[i].uri}/model.safetensors") for i in (3, 0))
        assert first.keys() == last.keys()
        assert any((first[name] != last[name]).any() for name in first)

    request = stand.lead.requests[f"{run.run_id}/1/0/1"]
    assert request.options.sampling.temperature == pytest.approx(0.7)
    assert list(request.options.required_columns) == ["name", "size"]
    assert list(request.options.key_columns) == ["name"]
    assert (request.options.corpus, request.options.answer_format) == ("boxes", lead.ANSWER_FORMAT_TABLE)
    assert request.training.group_id == f"{run.run_id}/1/0"
    assert (request.training.index, request.training.group_size) == (1, 2)
    assert len(stand.lead.requests) == 3 * 2 * 2


async def test_trainer_policies_can_be_promoted_back_and_damage_is_seen(stand: Any, serve: Any) -> None:
    async with serve() as stub:
        run = await create(stub, stand.config(steps=1))
        await finished(stub, run.run_id)
        promoted = (await stub.PromotePolicy(pb.PromotePolicyRequest(version=0))).policy
        assert promoted.current
        assert (await stub.GetPolicy(pb.GetPolicyRequest(version=0))).policy.current
        cut_short((await stub.GetPolicy(pb.GetPolicyRequest(version=1))).policy.uri)
        with pytest.raises(ServiceError) as caught, calling():
            await stub.PromotePolicy(pb.PromotePolicyRequest(version=1))
        assert caught.value.reason == "POLICY_DAMAGED"
        assert "model.safetensors" in caught.value.message
        assert (await stub.GetPolicy(pb.GetPolicyRequest(version=0))).policy.current, "the good one stays announced"
        with pytest.raises(ServiceError) as caught, calling():
            await stub.PromotePolicy(pb.PromotePolicyRequest(version=9))
        assert caught.value.reason == "POLICY_NOT_FOUND"


def cut_short(directory: str) -> None:
    weights = Path(directory, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-7])


Change = Callable[[pb.TrainingConfig], None]


@pytest.mark.parametrize(
    ("change", "field", "figure"),
    [
        (lambda c: setattr(c, "steps", 0), "config.steps", "0"),
        (lambda c: setattr(c, "group_size", 1), "config.group_size", "1"),
        (lambda c: setattr(c, "learning_rate", -1.0), "config.learning_rate", "-1.0"),
        (lambda c: setattr(c.episode.sampling, "temperature", 0.0), "config.episode.sampling.temperature", "0.0"),
        (lambda c: setattr(c.episode.sampling, "top_p", 0.9), "config.episode.sampling.top_p", "0.9"),
        (lambda c: setattr(c.episode.sampling, "top_k", 20), "config.episode.sampling.top_k", "20"),
        (lambda c: setattr(c.episode.sampling, "seed", 5), "config.episode.sampling.seed", "a seed"),
        (lambda c: c.reward_weights.update({"beauty": 1}), "config.reward_weights", "beauty"),
        (lambda c: setattr(c, "task_set_uri", "/no/such/file.jsonl"), "config.task_set_uri", "/no/such/file.jsonl"),
        (lambda c: setattr(c, "task_set_uri", "what://x"), "config.task_set_uri", "what"),
    ],
)
async def test_trainer_refuses_with_field_and_figure(
    stand: Any, serve: Any, change: Change, field: str, figure: str
) -> None:
    config = stand.config()
    change(config)
    async with serve() as stub:
        with pytest.raises(ServiceError) as caught:
            await create(stub, config)
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.message.startswith(field)
        assert figure in caught.value.message
        assert not (await stub.ListTrainingRuns(pb.ListTrainingRunsRequest())).runs


async def test_trainer_one_run_at_a_time_and_cancel(stand: Any, serve: Any) -> None:
    stand.lead.playing.clear()
    async with serve() as stub:
        run = await create(stub, stand.config(), "a")
        for request_id, config, reason in (
            ("a", stand.config(steps=9), "REQUEST_ID_REUSED"),
            ("b", stand.config(), "RUN_ACTIVE"),
        ):
            with pytest.raises(ServiceError) as caught:
                await create(stub, config, request_id)
            assert caught.value.reason == reason
        await eventually(lambda: len(stand.lead.requests) == 12)
        await stub.CancelTrainingRun(pb.CancelTrainingRunRequest(run_id=run.run_id))
        assert (await finished(stub, run.run_id)).state == pb.TrainingRun.STATE_CANCELLED
        assert len(stand.lead.cancelled) == 12
        for call in (stub.GetTrainingRun, stub.CancelTrainingRun):
            with pytest.raises(ServiceError) as caught, calling():
                await call(pb.GetTrainingRunRequest(run_id="run.*"))
            assert caught.value.reason == "TRAINING_RUN_NOT_FOUND"
        runs = (await stub.ListTrainingRuns(pb.ListTrainingRunsRequest(page_size=1))).runs
        assert [one.run_id for one in runs] == [run.run_id]


async def test_trainer_goes_on_after_a_restart(stand: Any, serve: Any) -> None:
    stand.lead.playing.clear()
    async with serve() as stub:
        run = await create(stub, stand.config())
        await eventually(lambda: len(stand.lead.requests) == 12)
    # Episodes end while no trainer is there.
    for request in stand.lead.requests.values():
        name = (await stand.lead.CreateEpisode(request, None)).episode.episode_id
        for event in stand.lead.log(request, name):
            await stand.bus.publish(episodes.subject(name), event.SerializeToString(), event.event_id)
    calls = stand.lead.calls
    async with serve() as stub:
        ended = await finished(stub, run.run_id)
        assert ended.state == pb.TrainingRun.STATE_SUCCEEDED
        assert ended.counters.groups_trained == 6
    assert len(stand.lead.requests) == 12
    assert stand.lead.calls <= calls + 12


async def test_trainer_sends_watchers_away_when_it_ends(stand: Any, serve: Any) -> None:
    stand.lead.playing.clear()
    async with serve() as stub:
        run = await create(stub, stand.config())
        watching = asyncio.create_task(watch(stub, run.run_id))
        await eventually(lambda: len(stand.lead.requests) == 12)
        stand.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watching
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with serve() as stub:
        found = (await stub.GetTrainingRun(pb.GetTrainingRunRequest(run_id=run.run_id))).run
        assert found.state == pb.TrainingRun.STATE_RUNNING


async def test_trainer_failed_episodes_and_newer_events_do_not_hold_a_step_up(stand: Any, serve: Any) -> None:
    whole = stand.lead.log

    def log(request: lead.CreateEpisodeRequest, episode: str) -> list[events.TrajectoryEvent]:
        made: list[events.TrajectoryEvent] = whole(request, episode)
        if request.request_id.endswith("/1/0/0"):
            made[-1].episode_finished.stop_reason = events.STOP_REASON_FAILED
        if request.request_id.endswith("/1/1/0"):
            made[4].schema_version = 99
        return made

    stand.lead.log = log
    async with serve() as stub:
        ended = await finished(stub, (await create(stub, stand.config(steps=2))).run_id)
        assert ended.state == pb.TrainingRun.STATE_SUCCEEDED
        assert ended.counters.episodes_failed >= 1
        assert ended.counters.events_of_newer_schema == 1
        assert ended.counters.groups_trained == 3


async def test_trainer_refused_episode_fails_the_run_with_the_reason(stand: Any, serve: Any) -> None:
    async with serve() as stub:
        # A run whose ids mean other episodes already.
        stand.lead.requests.update(
            {f"{_run_id('y')}/1/0/{k}": lead.CreateEpisodeRequest(question="?") for k in range(2)}
        )
        ended = await finished(stub, (await create(stub, stand.config(), "y")).run_id)
        assert ended.state == pb.TrainingRun.STATE_FAILED
        assert "REQUEST_ID_REUSED" in str(ended.error)
        assert "task-" in ended.error.message
        after = await create(stub, stand.config(steps=1))
        assert (await finished(stub, after.run_id)).state == pb.TrainingRun.STATE_SUCCEEDED, "the service lives on"


def _run_id(request_id: str) -> str:
    return f"run-{hashlib.sha256(request_id.encode()).hexdigest()[:16]}"


class SlowServing:
    """Inference that swaps late: it serves what was announced `lag` versions ago."""

    def __init__(self) -> None:
        self.served, self.failures = 0, 2

    async def version(self) -> int:
        if self.failures:
            self.failures -= 1
            raise Busy("not yet")
        return self.served


async def test_trainer_waits_for_inference_to_serve_the_weights(stand: Any, serve: Any) -> None:
    serving = SlowServing()
    async with serve(around=lambda ports: replace(ports, serving=serving)) as stub:
        run = await create(stub, stand.config(max_staleness=0))
        await eventually(lambda: len(stand.lead.requests) == 4)
        async for message in stub.WatchTrainingRun(pb.WatchTrainingRunRequest(run_id=run.run_id)):
            if message.WhichOneof("event") == "step":
                await asyncio.sleep(0.3)
                assert len(stand.lead.requests) == 4 * message.step.step, "no episode before the swap"
                serving.served = stand.lead.version = message.step.policy_version
        ended = (await stub.GetTrainingRun(pb.GetTrainingRunRequest(run_id=run.run_id))).run
        assert (ended.state, ended.counters.groups_stale) == (pb.TrainingRun.STATE_SUCCEEDED, 0)


async def test_trainer_says_so_when_inference_stays_behind(stand: Any, serve: Any) -> None:
    stand.settings = stand.settings.model_copy(update={"serving_timeout": 0.5})
    async with serve(around=lambda ports: replace(ports, serving=SlowServing())) as stub:
        ended = await finished(stub, (await create(stub, stand.config(max_staleness=0))).run_id)
        assert ended.state == pb.TrainingRun.STATE_FAILED
        assert "SERVING_BEHIND" in str(ended.error)
        assert "version 0" in ended.error.message


class Counting:
    """The lead's port, with the number of episodes in flight written down."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.most, self.flying = inner, 0, 0

    async def create(self, request: EpisodeRequest) -> str:
        self.flying += 1
        self.most = max(self.most, self.flying)
        await asyncio.sleep(0.01)
        answer: str = await self.inner.create(request)
        self.flying -= 1
        return answer


async def test_trainer_bounds_the_episodes_in_flight(stand: Any, serve: Any) -> None:
    counting: list[Counting] = []

    def around(ports: Ports) -> Ports:
        counting.append(Counting(ports.episodes))
        return replace(ports, episodes=counting[0])  # type: ignore[arg-type]

    async with serve(around=around) as stub:
        config = stand.config(steps=2, questions_per_step=4, max_episodes_in_flight=3)
        await finished(stub, (await create(stub, config)).run_id)
    assert 2 <= counting[0].most <= 3


async def test_trainer_gives_up_on_a_log_that_never_ends(stand: Any, serve: Any) -> None:
    stand.settings = stand.settings.model_copy(update={"episode_timeout": 0.5})
    whole = stand.lead.log
    stand.lead.log = lambda request, episode: whole(request, episode)[: -1 if "/1/0/0" in request.request_id else None]
    async with serve() as stub:
        ended = await finished(stub, (await create(stub, stand.config(steps=2))).run_id)
        assert ended.state == pb.TrainingRun.STATE_SUCCEEDED
        assert ended.counters.episodes_failed == 1
        assert ended.steps_done == 2
    assert len(stand.lead.cancelled) == 1


async def test_trainer_outlasts_a_nats_that_goes_away(stand: Any, serve: Any, nats: Any) -> None:
    async with serve() as stub:
        stand.lead.playing.clear()
        run = await create(stub, stand.config(steps=2))
        await eventually(lambda: len(stand.lead.requests) == 8)
        await asyncio.to_thread(nats.stop)
        await asyncio.sleep(1)
        await asyncio.to_thread(nats.start)
        for request in stand.lead.requests.values():
            name = (await stand.lead.CreateEpisode(request, None)).episode.episode_id
            for event in stand.lead.log(request, name):
                await stand.bus.connected(20)
                await stand.bus.publish(episodes.subject(name), event.SerializeToString(), event.event_id)
        ended = await finished(stub, run.run_id)
        assert ended.state == pb.TrainingRun.STATE_SUCCEEDED
        assert ended.counters.groups_trained == 4


async def test_trainer_keeps_so_many_versions(stand: Any, serve: Any) -> None:
    stand.settings = stand.settings.model_copy(update={"keep_versions": 2})
    async with serve() as stub:
        await finished(stub, (await create(stub, stand.config(steps=4))).run_id)
        listed = (await stub.ListPolicies(pb.ListPoliciesRequest())).policies
        assert [policy.version for policy in listed] == [4, 3, 0]
    assert sorted(os.listdir(stand.settings.policy_store_uri)) == [
        "v00000000",
        "v00000003",
        "v00000004",
    ]


async def test_trainer_next_run_goes_on_from_the_current_policy(stand: Any, serve: Any) -> None:
    async with serve() as stub:
        await finished(stub, (await create(stub, stand.config(steps=1, learning_rate=1e-2))).run_id)
        stand.lead.version = 1
        ended = await finished(stub, (await create(stub, stand.config(steps=1, learning_rate=1e-9))).run_id)
        assert (ended.policy_version, ended.counters.groups_trained) == (2, 2)
        second, first, _ = (await stub.ListPolicies(pb.ListPoliciesRequest())).policies
        one, two = (load_file(f"{policy.uri}/model.safetensors") for policy in (first, second))
        assert all((one[name] - two[name]).abs().max() < 1e-6 for name in one)
