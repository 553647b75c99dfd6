import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as inference_pb
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_grpc
from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek.subagent.v1 import subagent_service_pb2_grpc as pb_grpc
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_agent.messages import Message, Role
from wideseek_agent.pack import Shelf
from wideseek_agent.testing import INFERENCE, TOOLS, FakePage, FakeTools, Script, ScriptedInference, call_text
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import InvalidArgument, NotFound, ResourceExhausted, ServiceError, Unavailable
from wideseek_kit.testing import eventually, grpc_server
from wideseek_subagent.settings import Settings
from wideseek_subagent.wiring import SERVICE_NAMES, register

PAGES = {
    "atlas://zark": FakePage("Zark", "Zark is a planet. Its moon is Ono.", "Zark, a star?"),
    "atlas://long": FakePage("Long", "Zark again. " * 600),
}


@dataclass
class Suite:
    """The service under test between two fakes."""

    inference: ScriptedInference
    tools: FakeTools
    stub: pb_grpc.SubagentServiceStub

    def start(self, timeout: float | None = None, **fields: Any) -> "aio.UnaryStreamCall[Any, pb.RunSubtaskResponse]":
        given = {"episode_id": "e1", "agent_id": "s1", "prompt": "Find the moon of Zark.", "prompt_pack": "seed"}
        return self.stub.RunSubtask(pb.RunSubtaskRequest(**(given | fields)), timeout=timeout)

    async def run(
        self, *, seen: list[pb.RunSubtaskResponse] | None = None, within: float | None = None, **fields: Any
    ) -> list[pb.RunSubtaskResponse]:
        responses = [] if seen is None else seen
        with calling():
            async for response in self.start(within, **fields):
                responses.append(response)
        return responses


@asynccontextmanager
async def suite(script: Script, *, max_context_tokens: int = 0, **settings: Any) -> AsyncIterator[Suite]:
    inference, tools = ScriptedInference(script, version=3, max_context_tokens=max_context_tokens), FakeTools(PAGES)
    async with (
        _serve(lambda s: inference_grpc.add_InferenceServiceServicer_to_server(inference, s), INFERENCE) as models,
        _serve(lambda s: tools_grpc.add_ToolsServiceServicer_to_server(tools, s), TOOLS) as books,
        _serve(lambda s: register(s, models, books, Shelf(), Settings(**settings)), *SERVICE_NAMES) as channel,
    ):
        yield Suite(inference, tools, pb_grpc.SubagentServiceStub(channel))


@asynccontextmanager
async def _serve(add: Callable[[aio.Server], None], *names: str) -> AsyncIterator[aio.Channel]:
    async with grpc_server(add, *names) as target, open_channel(target) as channel:
        yield channel


def turns_so_far(messages: Sequence[Message]) -> int:
    return sum(message.role is Role.ASSISTANT for message in messages)


def finds_the_moon(messages: Sequence[Message]) -> str:
    match turns_so_far(messages):
        case 0:
            return call_text("search", queries=[{"query": "moon of Zark"}])
        case 1:
            return call_text("access", urls=[{"url": "atlas://zark", "info_to_extract": "moon"}, {"url": "atlas://no"}])
        case _:
            return "Zark: moon Ono."


async def test_a_subtask_from_search_to_report() -> None:
    async with suite(finds_the_moon) as here:
        responses = await here.run(sampling=inference_pb.SamplingParams(temperature=0.7), model="policy", corpus="w1")
    assert [response.sequence for response in responses] == list(range(1, 8))
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["progress", "turn", "progress", "turn", "progress", "turn", "report"]
    assert [r.progress.activity for r in responses[::2][:3]] == [
        "search: moon of Zark",
        "access: atlas://zark; atlas://no",
        "answer",
    ]
    report = responses[-1].report
    assert (report.text, report.turns, report.error, report.budget_exhausted) == ("Zark: moon Ono.", 3, "", False)
    first, second, third = (r.turn for r in responses if r.HasField("turn"))
    assert [turn.turn for turn in (first, second, third)] == [1, 2, 3]
    assert first.tools[0].found[0] == "atlas://zark"
    assert [(t.input, t.error, t.excerpt, t.cache_hit) for t in second.tools] == [
        ("atlas://zark", "", "Zark is a planet. Its moon is Ono.", True),
        ("atlas://no", "PAGE_NOT_FOUND", "", False),
    ]
    assert list(third.tools) == []
    assert third.message.content == "Zark: moon Ono."
    assert {request.affinity_key for request in here.inference.requests} == {"e1/s1"}
    assert {request.sampling.temperature for request in here.inference.requests} == {0.7}
    assert here.tools.searches[0].corpus == here.tools.fetches[0].corpus == "w1"


async def test_the_turns_are_the_whole_token_sequence() -> None:
    async with suite(finds_the_moon) as here:
        turns = [r.turn for r in await here.run() if r.HasField("turn")]
    sequence: list[int] = []
    for turn, request in zip(turns, here.inference.requests, strict=True):
        assert list(request.context.token_ids) == sequence
        sequence += [*turn.prompt_token_ids, *turn.output_token_ids]
        assert len(turn.output_logprobs) == len(turn.output_token_ids)
        assert turn.trainable
        assert turn.template_hash
        assert turn.version_spans[0].version == 3
    assert bytes(sequence).decode().startswith("[system]You are a subagent.[user]Find the moon of Zark.[assistant]")


async def test_the_turn_limit_brings_an_answer_with_what_there_is() -> None:
    def goes_on(messages: Sequence[Message]) -> str:
        if messages[-1].content == "Answer now.":
            return "Zark: moon unknown."
        return call_text("search", queries=[{"query": "moon"}])

    async with suite(goes_on) as here:
        responses = await here.run(limits=pb.SubtaskLimits(max_turns=4))
    report = responses[-1].report
    assert (report.text, report.turns, report.budget_exhausted) == ("Zark: moon unknown.", 4, True)
    assert len(here.tools.searches) == 3


async def test_tool_calls_and_tokens_hold() -> None:
    def goes_on(messages: Sequence[Message]) -> str:
        if messages[-1].content == "Answer now.":
            return "moon unknown"
        return call_text("search", queries=[{"query": "moon"}] * 3)

    async with suite(goes_on) as here:
        responses = await here.run(limits=pb.SubtaskLimits(max_tool_calls=5))
        assert sum(len(search.queries) for search in here.tools.searches) == 5
        assert responses[-1].report.text == "moon unknown"
        responses = await here.run(limits=pb.SubtaskLimits(max_output_tokens=300))
        assert sum(r.turn.usage.output_tokens for r in responses) <= 300
        assert responses[-1].report.budget_exhausted


async def test_a_model_of_a_small_context_is_not_overrun() -> None:
    def goes_on(messages: Sequence[Message]) -> str:
        if messages[-1].content == "Answer now.":
            return "end"
        return call_text("access", urls=[{"url": "atlas://zark", "info_to_extract": "moon"}])

    async with suite(goes_on, max_context_tokens=900) as here:
        report = (await here.run())[-1].report
    assert (report.text, report.budget_exhausted) == ("end", True)


async def test_a_failing_tools_service_is_told_to_the_model() -> None:
    async with suite(finds_the_moon, prompt_pack="full") as here:
        here.tools.failure = ServiceError("the index is damaged", reason="INDEX_DAMAGED")
        responses = await here.run(prompt_pack="full")
    turns = [r.turn for r in responses if r.HasField("turn")]
    assert [item.error for item in turns[0].tools] == ["INDEX_DAMAGED"]
    assert [item.error for item in turns[1].tools] == ["INDEX_DAMAGED"] * 2
    assert "the index is damaged" in here.inference.requests[1].messages[0].content
    assert responses[-1].report.text == "Zark: moon Ono."


async def test_an_absent_tools_service_is_told_without_its_address() -> None:
    inference = ScriptedInference(finds_the_moon)
    async with (
        _serve(lambda s: inference_grpc.add_InferenceServiceServicer_to_server(inference, s), INFERENCE) as models,
        open_channel("unix:/tmp/wideseek-no-tools-here") as nobody,
        _serve(lambda s: register(s, models, nobody, Shelf(), Settings()), *SERVICE_NAMES) as channel,
    ):
        here = Suite(inference, FakeTools({}), pb_grpc.SubagentServiceStub(channel))
        responses = await here.run(prompt_pack="full")
    assert responses[1].turn.tools[0].error == "UNAVAILABLE"
    told = here.inference.requests[1].messages[0].content
    assert "The search failed: unavailable" in told
    assert "wideseek-no-tools-here" not in told


async def test_an_absent_inference_service_ends_the_call_as_unavailable() -> None:
    async with (
        open_channel("unix:/tmp/wideseek-no-inference-here") as nobody,
        _serve(lambda s: register(s, nobody, nobody, Shelf(), Settings()), *SERVICE_NAMES) as channel,
    ):
        here = Suite(ScriptedInference(lambda _: ""), FakeTools({}), pb_grpc.SubagentServiceStub(channel))
        with pytest.raises(Unavailable):
            await here.run()


async def test_inference_that_fails_in_mid_run_ends_the_call_with_its_reason() -> None:
    def dies(messages: Sequence[Message]) -> str:
        if turns_so_far(messages) == 1:
            raise Unavailable("the engine is gone", reason="ENGINE_DEAD")
        return finds_the_moon(messages)

    async with suite(dies) as here:
        seen: list[pb.RunSubtaskResponse] = []
        with pytest.raises(Unavailable, match="the engine is gone") as caught:
            await here.run(seen=seen)
    assert caught.value.reason == "ENGINE_DEAD"
    assert [response.WhichOneof("event") for response in seen] == ["progress", "turn"]


async def waits(_: Sequence[Message]) -> str:
    await asyncio.Event().wait()
    return ""


async def test_a_caller_that_hangs_up_cancels_the_generation() -> None:
    async with suite(waits) as here:
        call = here.start()
        await eventually(lambda: here.inference.active == 1)
        call.cancel()
        await eventually(lambda: here.inference.cancelled == 1)
        assert here.inference.active == 0


async def test_a_caller_that_hangs_up_cancels_the_tools() -> None:
    async with suite(finds_the_moon) as here:
        here.tools.hold = asyncio.Event()
        call = here.start()
        await call.read()
        await eventually(lambda: len(here.tools.searches) == 1)
        call.cancel()
        await eventually(lambda: here.tools.cancelled == 1)


async def test_before_the_callers_deadline_the_agent_answers() -> None:
    async def slow_to_search(messages: Sequence[Message]) -> str:
        return "in time" if messages[-1].content == "Answer now." else await waits(messages)

    async with suite(slow_to_search) as here:
        report = (await here.run(within=4.0))[-1].report
        assert (report.text, report.budget_exhausted) == ("in time", True)
        assert here.inference.cancelled == 1


async def test_a_deadline_without_an_answer_is_reported() -> None:
    async with suite(waits) as here:
        report = (await here.run(within=4.0))[-1].report
    assert (report.error, report.text, report.turns) == ("DEADLINE_EXCEEDED", "", 0)


async def test_a_long_page_is_summarised_by_its_route() -> None:
    def script(messages: Sequence[Message]) -> str:
        if "--- page ---" in messages[0].content:
            return "The page says it is Zark."
        if turns_so_far(messages) == 0:
            return call_text("access", urls=[{"url": "atlas://long", "info_to_extract": "what it is"}])
        return "done"

    async with suite(script) as here:
        responses = await here.run(prompt_pack="full")
    route = [request for request in here.inference.requests if request.model == "summarizer"]
    assert len(route) == 1
    assert (route[0].sampling.temperature, route[0].sampling.max_output_tokens) == (0.0, 1024)
    assert responses[1].turn.tools[0].excerpt == "The page says it is Zark."
    assert responses[-1].report.text == "done"


async def test_a_single_agent_has_its_own_words_and_turns() -> None:
    def script(messages: Sequence[Message]) -> str:
        if turns_so_far(messages) == 0:
            return call_text("search", query="moon")
        return r"It is Ono. \boxed{Ono}"

    async with suite(script) as here:
        answer = pb.AnswerSpec(format="boxed")
        responses = await here.run(
            role=pb.SUBTASK_ROLE_SINGLE, agent_id="single", prompt_pack="full", answer=answer, language="zh"
        )
    opening = here.inference.requests[0]
    assert "50" in opening.messages[0].content
    assert "query" in json_format.MessageToDict(opening.tools[0].parameters)["properties"]
    assert responses[-1].report.text.endswith(r"\boxed{Ono}")


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"prompt": ""}, InvalidArgument, "prompt: empty"),
        ({"limits": pb.SubtaskLimits(max_turns=5000)}, InvalidArgument, "limits.max_turns: 5000 given, at most 1000"),
        ({"prompt_pack": "none"}, InvalidArgument, "prompt_pack: no pack 'none' in language 'en'"),
        ({"prompt_pack": "../seed"}, InvalidArgument, "prompt_pack: no pack '../seed'"),
        ({"language": "fr"}, InvalidArgument, "no pack 'seed' in language 'fr'"),
        ({"model": "missing"}, NotFound, "no model 'missing'"),
    ],
)
async def test_bad_requests(fields: dict[str, Any], kind: type[ServiceError], words: str) -> None:
    async with suite(finds_the_moon) as here:
        with pytest.raises(kind, match=words):
            await here.run(**fields)
    assert here.inference.requests == []


async def test_more_subtasks_than_there_is_room_for_are_refused() -> None:
    async with suite(waits, max_subtasks=1) as here:
        call = here.start()
        await eventually(lambda: here.inference.active == 1)
        with pytest.raises(ResourceExhausted, match="1 subtasks are at work") as caught:
            await here.run()
        assert caught.value.reason == "TOO_MANY_SUBTASKS"
        call.cancel()
        await eventually(lambda: here.inference.active == 0)
        again = here.start()
        await eventually(lambda: here.inference.active == 1)
        again.cancel()


async def test_many_subtasks_at_once_keep_their_own_contexts() -> None:
    def script(messages: Sequence[Message]) -> str:
        name = messages[1].content.split()[-1]
        return call_text("search", queries=[{"query": name}]) if turns_so_far(messages) < 2 else f"report on {name}"

    async with suite(script) as here:
        runs = await asyncio.gather(*(here.run(agent_id=f"s{n}", prompt=f"Find N{n}") for n in range(20)))
    assert [run[-1].report.text for run in runs] == [f"report on N{n}" for n in range(20)]
    assert {r.turn.agent_id for r in runs[7] if r.HasField("turn")} == {"s7"}


async def test_an_internal_fault_ends_the_call_without_its_words() -> None:
    class Broken(FakeTools):
        async def Search(self, request: Any, context: Any) -> Any:
            raise KeyError("secret")

    inference = ScriptedInference(finds_the_moon)
    async with (
        _serve(lambda s: inference_grpc.add_InferenceServiceServicer_to_server(inference, s), INFERENCE) as models,
        _serve(lambda s: tools_grpc.add_ToolsServiceServicer_to_server(Broken({}), s), TOOLS) as books,
        _serve(lambda s: register(s, models, books, Shelf(), Settings()), *SERVICE_NAMES) as channel,
    ):
        call = pb_grpc.SubagentServiceStub(channel).RunSubtask(
            pb.RunSubtaskRequest(episode_id="e", agent_id="s", prompt="x", prompt_pack="full")
        )
        responses = [response async for response in call]
        assert await call.code() is grpc.StatusCode.OK
    assert responses[1].turn.tools[0].error == "INTERNAL"
    assert all("secret" not in message.content for r in inference.requests for message in r.messages)
