"""The lead behind its contract: a real NATS server, a scripted model, fake subagents."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import duration_pb2
from grpc import aio
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_agent.testing import Script
from wideseek_kit.errors import ServiceError, Unavailable, from_rpc_error
from wideseek_kit.testing import eventually

if TYPE_CHECKING:
    from tests.conftest import World

E = pb.Episode


async def refused(call: Awaitable[Any]) -> ServiceError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_an_episode_of_many_agents(world: "World") -> None:
    async with world.replica() as lead:
        options = pb.EpisodeOptions(required_columns=["Moon", "Mass"], key_columns=["Moon"])
        tag = events.TrainingTag(run_id="r", group_id="g", task_id="t", group_size=8, index=7)
        created = await lead.create(options=options, training=tag)
        assert created.state == E.STATE_RUNNING
        assert created.options.limits.max_turns == 10
        ended = await lead.ended(created.episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        assert ended.stop_reason == events.STOP_REASON_ANSWERED
        assert list(ended.answer.columns) == ["Moon", "Mass"]
        assert [list(row.cells) for row in ended.answer.rows] == [["Zark", "5"], ["Quill", "7"]]
        assert list(ended.answer.rows[0].sources) == ["https://pages.test/Zark/1"]
        assert not ended.answer.problems
        assert (ended.usage.agents, ended.usage.turns, ended.usage.tool_calls) == (3, 4, 2)
        assert ended.training == tag

        log = await lead.log(created.episode_id)
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        assert len(log) == ended.last_sequence
        assert len({event.event_id for event in log}) == len(log)
        kinds = [event.WhichOneof("event") for event in log]
        assert kinds[:2] == ["episode_started", "agent_started"]
        assert kinds[-2:] == ["agent_finished", "episode_finished"]
        finished = log[-1].episode_finished
        assert {entry.agent_id: entry.turns for entry in finished.expected} == {"lead": 2, "s1": 1, "s2": 1}
        turns = [event.turn for event in log if event.WhichOneof("event") == "turn"]
        lead_turns = [turn for turn in turns if turn.agent_id == "lead"]
        assert [turn.turn for turn in lead_turns] == [1, 2]
        assert [tool.input for tool in lead_turns[0].tools] == ["Zark", "Quill"]
        assert all(len(turn.output_logprobs) == len(turn.output_token_ids) > 0 for turn in turns)
        started = [event.agent_started for event in log if event.WhichOneof("event") == "agent_started"]
        assert [(agent.agent_id, agent.parent_agent_id, agent.parent_turn) for agent in started] == [
            ("lead", "", 0),
            ("s1", "lead", 1),
            ("s2", "lead", 1),
        ]
        assert finished.output_tokens == ended.usage.output_tokens == sum(turn.usage.output_tokens for turn in turns)


async def test_a_single_agent(world: "World") -> None:
    async with world.replica() as lead:
        options = pb.EpisodeOptions(mode=pb.EPISODE_MODE_SINGLE_AGENT, required_columns=["Moon", "Mass", "Age"])
        ended = await lead.ended((await lead.create(options=options)).episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        assert list(ended.answer.problems) == ["required column 'Age' is missing"]
        [request] = world.subagents.requests
        assert (request.agent_id, request.limits.max_turns) == ("single", 50)
        assert list(request.answer.required_columns) == ["Moon", "Mass", "Age"]
        log = await lead.log(ended.episode_id)
        assert [event.WhichOneof("event") for event in log] == [
            "episode_started",
            "agent_started",
            "turn",
            "agent_finished",
            "episode_finished",
        ]


async def test_a_boxed_answer(world: "World", script: Callable[..., Script]) -> None:
    world.play(script("Zark", answer="so \\boxed{a^{2}}"))
    async with world.replica() as lead:
        options = pb.EpisodeOptions(answer_format=pb.ANSWER_FORMAT_BOXED)
        ended = await lead.ended((await lead.create(options=options)).episode_id)
        assert ended.answer.boxed == "a^{2}"


async def test_a_failed_subagent_is_reported_and_the_lead_goes_on(world: "World") -> None:
    world.subagents.fail["Zark"] = Unavailable("the model is away", reason="MODEL_AWAY")
    async with world.replica() as lead:
        ended = await lead.ended((await lead.create()).episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        told = world.inference.requests[-1].messages[0].content
        assert "1. failed" in told
        assert "report on Quill" in told
        log = await lead.log(ended.episode_id)
        [failed] = [event.agent_finished for event in log if event.agent_finished.error]
        assert (failed.agent_id, failed.error) == ("s1", "MODEL_AWAY")


async def test_a_lead_that_fails_ends_in_a_failed_episode(world: "World") -> None:
    def script(messages: object) -> str:
        raise Unavailable("no engine", reason="ENGINE_DOWN")

    world.play(script)
    async with world.replica() as lead:
        ended = await lead.ended((await lead.create()).episode_id)
        assert ended.state == E.STATE_FAILED
        assert ended.stop_reason == events.STOP_REASON_FAILED
        assert ended.error.message == "no engine"
        assert not ended.HasField("answer")
        log = await lead.log(ended.episode_id)
        assert log[-1].episode_finished.error_message == "no engine"


async def test_a_watch_resumes_from_every_sequence_at_another_replica(world: "World") -> None:
    async with world.replica() as first, world.replica() as second:
        episode_id = (await first.create()).episode_id
        whole = await first.watch(episode_id)
        last = whole[-1].sequence
        assert whole[0].WhichOneof("event") == "snapshot"
        assert [part.WhichOneof("event") for part in whole].count("finished") == 1
        for after in range(last + 1):
            again = await second.watch(episode_id, after)
            assert again[0].sequence == after
            assert again[1:-1] == [part for part in whole[1:-1] if part.sequence > after]
            assert again[-1] == whole[-1]
        error = await refused(second.watch(episode_id, last + 1))
        assert error.reason == "AFTER_SEQUENCE_PAST_END"
        assert error.facts["last_sequence"] == str(last)


async def test_a_watch_shows_an_episode_live_and_leaves_nothing_behind(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as first, world.replica() as second:
        episode_id = (await first.create()).episode_id
        call = second.stub.WatchEpisode(pb.WatchEpisodeRequest(episode_id=episode_id))
        seen = []
        async for part in call:
            seen.append(part)
            if sum(p.WhichOneof("event") == "turn" for p in seen) == 2:
                break
        assert not seen[-1].turn.message.tool_calls
        assert list(seen[-1].turn.policy_versions) == [3]
        client = second.lead.canceller._bus.client
        listening = len(client._subs)
        call.cancel()
        await eventually(lambda: len(client._subs) == listening - 1)
        world.subagents.hold.set()
        assert (await first.ended(episode_id)).state == E.STATE_SUCCEEDED


@pytest.mark.parametrize("mode", [pb.EPISODE_MODE_MULTI_AGENT, pb.EPISODE_MODE_SINGLE_AGENT])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_cancelling_stops_everything_under_the_episode(
    world: "World", mode: "pb.EpisodeMode.ValueType", elsewhere: bool
) -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as first, world.replica() as second:
        episode_id = (await first.create(options=pb.EpisodeOptions(mode=mode))).episode_id
        number = 2 if mode == pb.EPISODE_MODE_MULTI_AGENT else 1
        await eventually(lambda: world.subagents.active == number)
        asked = second if elsewhere else first
        request = pb.CancelEpisodeRequest(episode_id=episode_id)
        ended = (await asked.stub.CancelEpisode(request)).episode
        assert ended.state == E.STATE_CANCELLED
        assert ended.stop_reason == events.STOP_REASON_CANCELLED
        await eventually(lambda: world.subagents.active == 0)
        assert world.subagents.cancelled == number
        assert (await asked.stub.CancelEpisode(request)).episode == ended
        log = await first.log(episode_id)
        assert [event.sequence for event in log] == list(range(1, ended.last_sequence + 1))
        assert log[-1].episode_finished.stop_reason == events.STOP_REASON_CANCELLED


async def test_events_over_the_payload_limit_travel_by_reference(world: "World") -> None:
    world.subagents.page = " and more" * 150_000  # above NATS' 1 MB
    async with world.replica() as lead:
        parts = await lead.watch((await lead.create()).episode_id)
        [zark] = [part.turn for part in parts if part.turn.agent_id == "s1"]
        assert len(zark.tools[0].excerpt) > 1_300_000
        assert parts[-1].finished.state == E.STATE_SUCCEEDED


async def test_an_answer_too_long_to_keep_is_cut_and_says_so(world: "World", script: Callable[..., Script]) -> None:
    world.play(script("Zark", answer="```markdown\n| A |\n|---|\n" + "| x |\n" * 150_000 + "```"))
    async with world.replica(max_output_tokens=2_000_000, max_context_tokens=4_000_000) as lead:
        ended = await lead.ended((await lead.create()).episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        assert "at most 1,000,000 are kept" in ended.answer.problems[0]
        assert len(ended.answer.text) == 100_000


async def test_cancelling_stops_a_generation(world: "World") -> None:
    never = asyncio.Event()

    async def script(messages: object) -> str:
        await never.wait()
        return "never"

    world.play(script)
    async with world.replica() as lead:
        episode_id = (await lead.create()).episode_id
        await eventually(lambda: world.inference.active == 1)
        await lead.stub.CancelEpisode(pb.CancelEpisodeRequest(episode_id=episode_id))
        await eventually(lambda: world.inference.cancelled == 1)


async def test_unknown_episodes_are_named(world: "World") -> None:
    async with world.replica() as lead:
        for unknown in ("0000000000000000000000", "", "*", "a.b"):
            for call in (
                lead.stub.GetEpisode(pb.GetEpisodeRequest(episode_id=unknown)),
                lead.stub.CancelEpisode(pb.CancelEpisodeRequest(episode_id=unknown)),
                lead.watch(unknown),
            ):
                error = await refused(call)
                assert (error.reason, error.facts["episode_id"]) == ("EPISODE_NOT_FOUND", unknown)


async def test_a_request_id_makes_one_episode(world: "World") -> None:
    async with world.replica() as first, world.replica() as second:
        made = await asyncio.gather(*(lead.create(request_id="once") for lead in (first, second) * 4))
        assert len({episode.episode_id for episode in made}) == 1
        ended = await first.ended(made[0].episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        assert len(world.subagents.requests) == 2  # of one episode
        error = await refused(second.create("another question", request_id="once"))
        assert error.reason == "REQUEST_ID_REUSED"
        assert error.facts == {"request_id": "once", "episode_id": made[0].episode_id}
        assert (await second.create(request_id="once")) == ended


async def test_a_full_replica_says_so(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica(max_episodes=2) as lead:
        for name in ("a", "b"):
            await lead.create(request_id=name)
        error = await refused(lead.create())
        assert error.reason == "TOO_MANY_EPISODES"
        assert error.facts == {"running": "2", "limit": "2"}
        assert (await lead.create(request_id="a")).state == E.STATE_RUNNING
        world.subagents.hold.set()
        await eventually(lambda: len(lead.lead.keeper) == 0)
        await lead.create()


async def test_lists_go_newest_first_in_pages(world: "World") -> None:
    async with world.replica() as lead:
        made = [(await lead.create(f"question {number}")).episode_id for number in range(5)]
        for episode_id in made:
            await lead.ended(episode_id)
        world.subagents.hold = asyncio.Event()
        running = (await lead.create("running")).episode_id
        found: list[pb.Episode] = []
        token, pages = "", 0
        while pages == 0 or token:
            page = await lead.stub.ListEpisodes(pb.ListEpisodesRequest(page_size=2, page_token=token))
            assert len(page.episodes) <= 2
            found += page.episodes
            token, pages = page.next_page_token, pages + 1
        assert pages == 3
        assert [episode.episode_id for episode in found] == [running, *reversed(made)]
        assert found[1].answer.columns
        assert not found[1].answer.rows
        only = await lead.stub.ListEpisodes(pb.ListEpisodesRequest(state=E.STATE_RUNNING))
        assert [episode.episode_id for episode in only.episodes] == [running]
        assert (await refused(lead.stub.ListEpisodes(pb.ListEpisodesRequest(page_size=1001)))).facts["most"] == "1000"
        world.subagents.hold.set()


async def test_a_running_episode_shows_what_it_has_spent(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as lead:
        episode_id = (await lead.create()).episode_id
        usage = pb.EpisodeUsage()
        async with asyncio.timeout(10):
            while usage.turns < 2:
                usage = (await lead.get(episode_id)).usage
                await asyncio.sleep(0.02)
        assert (usage.agents, usage.tool_calls) == (3, 2)
        world.subagents.hold.set()


async def test_the_deadline_leaves_time_for_the_answer(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as lead:
        limits = pb.EpisodeLimits(deadline=duration_pb2.Duration(seconds=1, nanos=200_000_000))
        ended = await lead.ended((await lead.create(options=pb.EpisodeOptions(limits=limits))).episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        assert ended.stop_reason == events.STOP_REASON_DEADLINE
        assert len(ended.answer.rows) == 2
        assert world.subagents.cancelled == 2
        log = await lead.log(ended.episode_id)
        assert [event.agent_finished.error for event in log if event.HasField("agent_finished")] == [
            "OUT_OF_TIME",
            "OUT_OF_TIME",
            "",
        ]


@pytest.mark.parametrize(
    ("field", "figure", "change"),
    [
        ("question", "empty", {"question": "  "}),
        ("question", "32769 characters, at most 32768", {"question": "x" * 32_769}),
        ("options.limits.max_subagents", "0 given, must be from 1", {"limits": {"max_subagents": 0}}),
        ("options.limits.max_turns", "501 given, must be from 1 to 500", {"limits": {"max_turns": 501}}),
        ("options.limits.max_tool_calls", "4,294,967,295", {"limits": {"max_tool_calls": 2**32 - 1}}),
        ("options.limits.deadline", "0 s given", {"limits": {"deadline": duration_pb2.Duration()}}),
        ("options.limits.deadline", "-1 s given", {"limits": {"deadline": duration_pb2.Duration(seconds=-1)}}),
        ("options.limits.deadline", "86401 s given", {"limits": {"deadline": duration_pb2.Duration(seconds=86_401)}}),
        ("options.key_columns", "'C' is not among required_columns (A, B)", {"key_columns": ["C"]}),
        ("options.required_columns[1]", "'a ' is the same column as 'A'", {"required_columns": ["A", "a "]}),
        ("options.required_columns[0]", "empty name", {"required_columns": [""]}),
        ("options.language", "'fr', must be one of en, zh", {"language": "fr"}),
        ("options.sampling.temperature", "-0.1 given", {"sampling": {"temperature": -0.1}}),
        ("options.sampling.temperature", "nan given", {"sampling": {"temperature": float("nan")}}),
        ("options.sampling.top_p", "0 given", {"sampling": {"top_p": 0.0}}),
        ("options.prompt_pack", "../x", {"prompt_pack": "../x"}),
        ("options.prompt_pack", "no pack 'other'", {"prompt_pack": "other"}),
        ("options.prompt_pack", "no pack 'seed' in language 'zh'", {"language": "zh"}),
        ("options.model", "missing", {"model": "missing"}),
        ("options.mode", "9 is not a value", {"mode": 9}),
        ("training.index", "8 given, the group has 8", {"training": {"group_size": 8, "index": 8}}),
        ("request_id", "513 characters", {"request_id": "x" * 513}),
    ],
)
async def test_bad_requests_name_field_and_figure(
    world: "World", field: str, figure: str, change: dict[str, Any]
) -> None:
    options = {"required_columns": ["A", "B"]}
    fields = {name: change.pop(name) for name in ("question", "training", "request_id") if name in change}
    if "limits" in change:
        change["limits"] = pb.EpisodeLimits(**change["limits"])
    if "sampling" in change:
        change["sampling"] = inference.SamplingParams(**change["sampling"])
    if "training" in fields:
        fields["training"] = events.TrainingTag(**fields["training"])
    async with world.replica() as lead:
        error = await refused(lead.create(options=pb.EpisodeOptions(**{**options, **change}), **fields))
        assert error.code.name == "INVALID_ARGUMENT"
        assert error.facts["field"] == field
        assert figure in error.message
        assert not (await lead.stub.ListEpisodes(pb.ListEpisodesRequest())).episodes
