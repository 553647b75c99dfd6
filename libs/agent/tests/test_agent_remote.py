import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as pb_grpc
from wideseek_agent.loop import ContextFullError, TurnRecord
from wideseek_agent.messages import Message, Role, ToolCall, ToolSpec
from wideseek_agent.pack import Pack
from wideseek_agent.remote import (
    RemoteModel,
    RemoteTurn,
    evidence_to_wire,
    message_from_wire,
    message_to_wire,
    spec_to_wire,
    turn_to_wire,
)
from wideseek_agent.testing import INFERENCE, TEMPLATE_HASH, ScriptedInference, call_text, parse_reply
from wideseek_agent.tools import search_spec
from wideseek_agent.toolset import Evidence
from wideseek_kit.channels import open_channel
from wideseek_kit.errors import Cancelled, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from wideseek_kit.testing import eventually, grpc_server

ASK = [Message(Role.SYSTEM, "s"), Message(Role.USER, "moons?")]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
calls = st.builds(ToolCall, text, st.dictionaries(text, json_values, max_size=3), text) | st.builds(
    ToolCall, st.just(""), st.just({}), text, st.text("abc ", min_size=1)
)
messages = st.builds(Message, st.sampled_from(Role), text, text, st.lists(calls, max_size=3).map(tuple))


@given(messages)
def test_a_message_comes_back_from_the_wire_as_it_was(message: Message) -> None:
    assert message_from_wire(pb.Message.FromString(message_to_wire(message).SerializeToString())) == message


@pytest.mark.parametrize(
    ("arguments", "words"), [("{", "arguments are not JSON"), ("[1]", "arguments are not a JSON object")]
)
def test_arguments_that_are_no_object_make_the_call_malformed(arguments: str, words: str) -> None:
    wire = pb.Message(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(name="search", arguments_json=arguments)])
    (call,) = message_from_wire(wire).tool_calls
    assert words in call.error
    assert call.raw == arguments


def test_a_message_without_a_role_is_refused() -> None:
    with pytest.raises(ValueError, match="role: 0"):
        message_from_wire(pb.Message(content="x"))


def test_a_spec_keeps_its_schema() -> None:
    spec = search_spec(Pack.load("full", "en"), batch=True)
    wire = spec_to_wire(spec)
    assert wire.name == "search"
    assert json_format.MessageToDict(wire.parameters) == spec.parameters


def test_evidence_on_the_wire() -> None:
    item = Evidence("access", "u", "", 12, 1.5, True, ("Zark",), "Zark has")
    (wire,) = evidence_to_wire([item])
    assert (wire.tool, wire.input, wire.bytes, wire.cache_hit, wire.excerpt) == ("access", "u", 12, True, "Zark has")
    assert wire.latency.ToTimedelta().total_seconds() == 1.5
    assert list(wire.found) == ["Zark"]


@asynccontextmanager
async def serving(inference: ScriptedInference) -> AsyncIterator[pb_grpc.InferenceServiceStub]:
    async with (
        grpc_server(
            lambda server: pb_grpc.add_InferenceServiceServicer_to_server(inference, server), INFERENCE
        ) as target,
        open_channel(target) as channel,
    ):
        yield pb_grpc.InferenceServiceStub(channel)


async def test_turns_append_to_the_context_exactly() -> None:
    inference = ScriptedInference(lambda m: f"<think>hm</think>reply {len(m)}")
    async with serving(inference) as stub:
        model = RemoteModel(stub, model="policy", affinity_key="e1/s1")
        first = await model.generate(None, ASK, [ToolSpec("search", "d", {"type": "object"})], max_output_tokens=100)
        second = await model.generate(
            first.context, [Message(Role.TOOL, "hits")], [ToolSpec("search", "d", {})], max_output_tokens=None
        )
    assert (first.message.content, first.message.reasoning, second.message.content) == ("reply 2", "hm", "reply 4")
    one, two = inference.requests
    assert [tool.name for tool in one.tools] == ["search"]
    assert list(two.tools) == []
    assert (one.affinity_key, one.sampling.max_output_tokens) == ("e1/s1", 100)
    assert not two.sampling.HasField("max_output_tokens")
    result: pb.GenerateResult = first.record.result
    assert list(two.context.token_ids) == [*result.prompt_token_ids, *result.output_token_ids]
    assert second.input_tokens == len(two.context.token_ids) + len(second.record.result.prompt_token_ids)


async def test_a_turn_that_ended_is_not_given_up() -> None:
    class Slow(ScriptedInference):
        ended = False

        async def Generate(self, request, context):  # type: ignore[no-untyped-def]
            async for response in super().Generate(request, context):
                yield response
            await asyncio.sleep(0.05)
            self.ended = True

    inference = Slow(lambda _: "x")
    async with serving(inference) as stub:
        await RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None)
        assert inference.ended


async def test_the_smaller_cap_on_the_output_counts() -> None:
    inference = ScriptedInference(lambda _: "x" * 500)
    async with serving(inference) as stub:
        model = RemoteModel(stub, sampling=pb.SamplingParams(temperature=0.7, max_output_tokens=50))
        assert (await model.generate(None, ASK, [], max_output_tokens=80)).output_tokens == 50
        cut = await model.generate(None, ASK, [], max_output_tokens=20)
    assert (cut.output_tokens, cut.finish_reason) == (20, "length")
    assert inference.requests[0].sampling.temperature == 0.7


async def test_a_turn_event_holds_what_training_needs() -> None:
    async with serving(ScriptedInference(lambda _: call_text("search", query="a"), version=7)) as stub:
        generated = await RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None)
    assert isinstance(generated.record, RemoteTurn)
    turn = turn_to_wire("s1", TurnRecord(3, generated, (Evidence("search", "a", latency_seconds=0.25),)))
    assert (turn.agent_id, turn.turn, turn.template_hash, turn.trainable) == ("s1", 3, TEMPLATE_HASH, True)
    assert bytes(turn.prompt_token_ids).decode() == "[system]s[user]moons?[assistant]"
    assert len(turn.output_logprobs) == len(turn.output_token_ids) == turn.usage.output_tokens > 0
    assert [(s.version, s.start, s.end) for s in turn.version_spans] == [(7, 0, len(turn.output_token_ids))]
    assert json.loads(turn.message.tool_calls[0].arguments_json) == {"query": "a"}
    assert turn.finish_reason == pb.FINISH_REASON_STOP
    assert turn.generation_time.ToTimedelta().total_seconds() > 0
    assert turn.tools[0].latency.ToTimedelta().total_seconds() == 0.25


async def test_cancelling_generate_cancels_the_call() -> None:
    async def wait(_: Sequence[Message]) -> str:
        await asyncio.Event().wait()
        return ""

    inference = ScriptedInference(wait)
    async with serving(inference) as stub:
        task = asyncio.create_task(RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None))
        await eventually(lambda: inference.active == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: inference.active == 0)
    assert inference.cancelled == 1


async def test_a_refusal_keeps_its_reason() -> None:
    def refuse(_: Sequence[Message]) -> str:
        raise ResourceExhausted("16 requests wait", reason="QUEUE_FULL", waiting=16)

    async with serving(ScriptedInference(refuse)) as stub:
        with pytest.raises(ResourceExhausted, match="16 requests wait") as caught:
            await RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None)
    assert (caught.value.reason, caught.value.facts) == ("QUEUE_FULL", {"waiting": "16"})


async def test_a_server_that_cancels_a_call_is_an_error_and_no_cancellation_of_ours() -> None:
    def cancel(_: Sequence[Message]) -> str:
        raise Cancelled("aborted by the engine", reason="ABORTED_BY_ENGINE")

    async with serving(ScriptedInference(cancel)) as stub:
        with pytest.raises(Cancelled):
            await RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None)


async def test_a_full_context_is_told_to_the_loop() -> None:
    async with serving(ScriptedInference(lambda _: "x", max_context_tokens=40)) as stub:
        model = RemoteModel(stub)
        assert await model.context_limit() == 40
        with pytest.raises(ContextFullError, match="the context holds 40"):
            await model.generate(None, [Message(Role.USER, "y" * 50)], [], max_output_tokens=None)


async def test_a_context_of_somebody_else_is_refused_by_the_fake() -> None:
    async with serving(ScriptedInference(lambda _: "x")) as stub:
        with pytest.raises(InvalidArgument, match="context: 2 tokens"):
            await RemoteModel(stub).generate(pb.TokenContext(token_ids=[1, 2]), ASK, [], max_output_tokens=None)


async def test_an_unknown_route_and_an_absent_server() -> None:
    async with serving(ScriptedInference(lambda _: "x")) as stub:
        with pytest.raises(NotFound) as missing:
            await RemoteModel(stub, model="missing").context_limit()
    assert missing.value.reason == "MODEL_NOT_FOUND"
    async with open_channel("unix:/tmp/wideseek-nobody-listens-here") as channel:
        with pytest.raises(Unavailable):
            await RemoteModel(pb_grpc.InferenceServiceStub(channel)).generate(None, ASK, [], max_output_tokens=None)


async def test_a_stream_without_a_result_is_an_error() -> None:
    class Silent(ScriptedInference):
        async def Generate(self, request, context):  # type: ignore[no-untyped-def]
            yield pb.GenerateResponse(sequence=1, delta=pb.GenerateDelta(text="x", tokens=1))

    async with serving(Silent(lambda _: "")) as stub:
        with pytest.raises(Unavailable, match="without a result") as caught:
            await RemoteModel(stub).generate(None, ASK, [], max_output_tokens=None)
    assert caught.value.reason == "GENERATE_CUT_SHORT"


def test_replies_are_parsed_like_the_services() -> None:
    reply = parse_reply("<think>plan</think>all, one each.\n<tool_call>\nnonsense\n</tool_call>")
    assert (reply.reasoning, reply.content) == ("plan", "all, one each.")
    assert "not a tool call" in reply.tool_calls[0].error
    assert parse_reply(call_text("search", "go", query="a")).tool_calls[0].arguments == {"query": "a"}
