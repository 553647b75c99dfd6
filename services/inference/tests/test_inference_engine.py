"""The service over real vLLM: tokens, logprobs, spans, swaps, cancellation."""

import asyncio
import contextlib
import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from grpc import aio
from transformers import AutoModelForCausalLM, AutoTokenizer
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek.inference.v1 import weight_service_pb2 as weights_pb
from wideseek.inference.v1 import weight_service_pb2_grpc as weights_rpc
from wideseek_contract.policies import WEIGHTS
from wideseek_inference.core.swap import Wanted
from wideseek_inference.engine import EngineParts, open_engine
from wideseek_inference.servicer import SERVICE_NAME, InferenceServicer
from wideseek_inference.settings import Settings
from wideseek_inference.testing import Tiny
from wideseek_inference.weight_servicer import WeightServicer
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import Aborted, InvalidArgument, NotFound, ServiceError
from wideseek_kit.testing import eventually, grpc_server

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings(  # vLLM's own
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:Unclosed (context|socket):ResourceWarning"
    ),
]
END = 2
LENGTH = 512


@dataclass(frozen=True)
class Service:
    """The service as its callers see it, and the engine under it."""

    parts: EngineParts
    channel: aio.Channel

    async def events(self, request: pb.GenerateRequest) -> list[pb.GenerateResponse]:
        with calling():
            return [event async for event in rpc.InferenceServiceStub(self.channel).Generate(request)]

    async def turn(self, request: pb.GenerateRequest) -> pb.GenerateResult:
        return (await self.events(request))[-1].result

    @property
    def weights(self) -> weights_rpc.WeightServiceStub:
        return weights_rpc.WeightServiceStub(self.channel)

    async def load(self, wanted: Wanted) -> weights_pb.WeightState:
        request = weights_pb.UpdateWeightsRequest(
            version=wanted.version, uri=wanted.uri, manifest_sha256=wanted.manifest_sha256
        )
        with calling():
            answer = await self.weights.UpdateWeights(request)
        return answer.state

    async def state(self) -> weights_pb.WeightState:
        answer = await self.weights.GetWeightState(weights_pb.GetWeightStateRequest())
        return answer.state


@contextlib.asynccontextmanager
async def serving(model: Path) -> AsyncIterator[Service]:
    settings = Settings(model=str(model), kv_cache_bytes=32 << 20)
    async with open_engine(settings) as parts:
        inference = InferenceServicer({"policy": parts.route, "judge": parts.route})
        weights = WeightServicer(parts.swapper, parts.vllm)

        def register(server: aio.Server) -> None:
            rpc.add_InferenceServiceServicer_to_server(inference, server)
            weights_rpc.add_WeightServiceServicer_to_server(weights, server)

        async with grpc_server(register, SERVICE_NAME) as target, open_channel(target) as channel:
            yield Service(parts, channel)


@pytest.fixture(scope="module", autouse=True)
def swept() -> Iterator[None]:
    """vLLM leaves its ZeroMQ contexts to the collector, which warns: better here than in a later test."""
    yield
    with warnings.catch_warnings(action="ignore"):
        gc.collect()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tiny: Tiny) -> AsyncIterator[Service]:
    async with serving(tiny.a) as running:
        yield running


def ask(
    text: str = "Which moons has Ravel?",
    *,
    context: pb.TokenContext | None = None,
    temperature: float = 0.7,
    most: int = 48,
    seed: int | None = None,
) -> pb.GenerateRequest:
    sampling = pb.SamplingParams(temperature=temperature, max_output_tokens=most, seed=seed)
    return pb.GenerateRequest(
        context=context, messages=[pb.Message(role=pb.ROLE_USER, content=text)], sampling=sampling
    )


def logprobs(model: Path, tokens: list[int], outputs: int, temperature: float) -> torch.Tensor:
    """What transformers gives for the last `outputs` of `tokens`."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logits = reference(torch.tensor([tokens])).logits[0, -outputs - 1 : -1]
    found: torch.Tensor = (logits / temperature).log_softmax(-1).gather(-1, torch.tensor([tokens[-outputs:]]).T)[:, 0]
    return found


async def test_a_turn_is_token_exact_with_logprobs_at_its_temperature(service: Service, tiny: Tiny) -> None:
    events = await service.events(ask(seed=5))
    result = events[-1].result
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.WhichOneof("event") for event in events] == ["delta"] * (len(events) - 1) + ["result"]
    assert (
        sum(event.delta.tokens for event in events[:-1]) == len(result.output_token_ids) == result.usage.output_tokens
    )
    tokens = list(result.context.token_ids)
    assert tokens == [*result.prompt_token_ids, *result.output_token_ids]
    tokenizer = AutoTokenizer.from_pretrained(tiny.a)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which moons has Ravel?"}], add_generation_prompt=True, return_dict=False
    )
    assert list(result.prompt_token_ids) == rendered
    expected = logprobs(tiny.a, tokens, len(result.output_token_ids), 0.7)
    torch.testing.assert_close(torch.tensor(result.output_logprobs), expected, atol=1e-4, rtol=0)
    assert [(s.start, s.end) for s in result.version_spans] == [(0, len(result.output_token_ids))]
    assert result.trainable


async def test_turns_append_to_one_sequence(service: Service, tiny: Tiny) -> None:
    first = await service.turn(ask(most=20))
    request = ask(context=first.context)
    request.messages[0].CopyFrom(pb.Message(role=pb.ROLE_TOOL, content="Two: Or and Ib."))
    second = await service.turn(request)
    tokens = list(second.context.token_ids)
    assert tokens == [*first.context.token_ids, *second.prompt_token_ids, *second.output_token_ids]
    assert second.usage.input_tokens == len(tokens) - len(second.output_token_ids)
    assert second.usage.cached_tokens > 0
    expected = logprobs(tiny.a, tokens, len(second.output_token_ids), 0.7)
    torch.testing.assert_close(torch.tensor(second.output_logprobs), expected, atol=1e-4, rtol=0)


async def test_the_end_of_a_turn_stays_in_its_tokens(service: Service) -> None:
    for number in range(40):
        result = await service.turn(ask(temperature=2, most=400, seed=number))
        if result.finish_reason == pb.FINISH_REASON_STOP:
            break
    assert result.output_token_ids[-1] == END
    assert len(result.output_logprobs) == len(result.output_token_ids)
    again = await service.turn(ask(context=result.context, most=2))
    assert END not in again.prompt_token_ids[:1]


async def test_a_limit_beyond_the_room_is_cut(service: Service) -> None:
    result = await service.turn(ask(temperature=0, most=100_000))
    assert len(result.context.token_ids) <= LENGTH
    if result.finish_reason == pb.FINISH_REASON_LENGTH:
        assert len(result.context.token_ids) == LENGTH


async def test_greedy_and_truncated_turns_are_not_trainable(service: Service) -> None:
    assert not (await service.turn(ask(temperature=0, most=4))).trainable
    truncated = ask(most=4)
    truncated.sampling.top_p = 0.9
    assert not (await service.turn(truncated)).trainable
    truncated = ask(most=4)
    truncated.sampling.top_k = 10
    assert not (await service.turn(truncated)).trainable


async def test_a_seed_repeats_a_turn(service: Service) -> None:
    seeds = [0, 7, 2**64 - 1]
    pairs = await asyncio.gather(*(service.turn(ask(seed=seed)) for seed in seeds * 2))
    texts = [tuple(result.output_token_ids) for result in pairs]
    assert texts[:3] == texts[3:]


def changed(**fields: object) -> pb.GenerateRequest:
    request = ask()
    for name, value in fields.items():
        setattr(request.sampling, name, value)
    return request


@pytest.mark.parametrize(
    ("request_", "error", "reason", "facts"),
    [
        (
            pb.GenerateRequest(model="oracle"),
            NotFound,
            "MODEL_NOT_FOUND",
            {"model": "oracle", "known": "judge, policy"},
        ),
        (pb.GenerateRequest(), InvalidArgument, "INVALID_ARGUMENT", {"field": "messages"}),
        (
            pb.GenerateRequest(messages=[pb.Message(content="x")]),
            InvalidArgument,
            "INVALID_ARGUMENT",
            {"field": "messages[0].role"},
        ),
        (
            pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_ASSISTANT)]),
            InvalidArgument,
            "INVALID_ARGUMENT",
            {"field": "messages[0].role"},
        ),
        (ask("x" * 600), InvalidArgument, "CONTEXT_TOO_LONG", {"field": "context", "tokens": "619", "limit": "512"}),
        (
            ask(context=pb.TokenContext(token_ids=[3, 4], template_hash="00")),
            InvalidArgument,
            "CONTEXT_FOREIGN",
            {"field": "context.template_hash", "found": "00"},
        ),
        (changed(temperature=-1), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.temperature"}),
        (changed(temperature=float("nan")), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.temperature"}),
        (changed(temperature=2.5), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.temperature"}),
        (changed(temperature=0.001), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.temperature"}),
        (changed(top_p=0), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.top_p"}),
        (changed(max_output_tokens=0), InvalidArgument, "INVALID_ARGUMENT", {"field": "sampling.max_output_tokens"}),
    ],
)
async def test_bad_input_names_field_and_figure(
    service: Service, request_: pb.GenerateRequest, error: type[ServiceError], reason: str, facts: dict[str, str]
) -> None:
    with pytest.raises(error) as caught:
        await service.events(request_)
    assert caught.value.reason == reason
    assert {name: caught.value.facts.get(name) for name in facts} == facts


async def test_the_largest_top_k_does_not_hurt_the_engine(service: Service) -> None:
    result = await service.turn(changed(top_k=2**32 - 1))
    assert len(result.output_token_ids) > 0


async def test_models_are_listed_by_name_in_pages(service: Service) -> None:
    stub = rpc.InferenceServiceStub(service.channel)
    first = await stub.ListModels(pb.ListModelsRequest(page_size=1))
    second = await stub.ListModels(pb.ListModelsRequest(page_size=1, page_token=first.next_page_token))
    assert [m.name for m in (*first.models, *second.models)] == ["judge", "policy"]
    assert second.next_page_token == ""
    model = (await stub.GetModel(pb.GetModelRequest())).model
    assert (model.name, model.backend, model.max_context_tokens, model.trainable) == ("policy", "vllm", LENGTH, True)
    assert len(model.template_hash) == 64


async def test_a_cancelled_call_leaves_the_engine(service: Service) -> None:
    call = rpc.InferenceServiceStub(service.channel).Generate(ask(temperature=0, most=LENGTH))
    await call.read()
    assert (await service.state()).requests_in_flight == 1
    call.cancel()
    await eventually(lambda: service.parts.vllm.in_flight == 0 and service.parts.vllm.unfinished == 0)
    assert (await service.state()).requests_lost == 0


async def test_requests_wait_while_paused(service: Service) -> None:
    await service.weights.PauseGeneration(weights_pb.PauseGenerationRequest())
    waiting = asyncio.create_task(service.turn(ask(most=4)))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert (await service.state()).paused
    await service.weights.ResumeGeneration(weights_pb.ResumeGenerationRequest())
    assert len((await waiting).output_token_ids) > 0


async def long_turns(service: Service, count: int, temperature: float) -> list[asyncio.Task[pb.GenerateResult]]:
    """Turns that have begun and go on for a while."""
    tasks = [
        asyncio.create_task(service.turn(ask(f"Tell of {number}.", temperature=temperature, most=450, seed=number)))
        for number in range(count)
    ]
    await eventually(lambda: service.parts.vllm.in_flight == count)
    await asyncio.sleep(0.05)
    return tasks


async def test_a_swap_under_load_loses_nothing_and_serves_the_new_weights(service: Service, tiny: Tiny) -> None:
    before = await service.turn(ask(temperature=0))
    turns = await long_turns(service, 16, 0.7)
    state = await service.load(tiny.wanted(tiny.b, 1))
    results = await asyncio.gather(*turns)
    assert (state.served_version, state.announced_version, state.last_error) == (1, 1, "")
    assert state.last_pause.ToTimedelta().total_seconds() > 0
    assert state.requests_lost == 0
    for result in results:
        edges = [(s.start, s.end) for s in result.version_spans]
        assert [0, *(end for _, end in edges)] == [*(start for start, _ in edges), len(result.output_token_ids)]
        assert len(result.output_logprobs) == len(result.output_token_ids)
    assert {tuple(s.version for s in result.version_spans) for result in results} & {(0, 1)}
    after = await service.turn(ask(temperature=0))
    async with serving(tiny.b) as fresh:
        expected = await fresh.turn(ask(temperature=0))
    assert list(after.output_token_ids) == list(expected.output_token_ids) != list(before.output_token_ids)
    assert list(after.output_logprobs) == pytest.approx(list(expected.output_logprobs), abs=1e-5)
    assert [s.version for s in after.version_spans] == [1]
    assert after.usage.cached_tokens == 0


async def test_tokens_before_a_swap_have_the_logprobs_of_the_old_weights(service: Service, tiny: Tiny) -> None:
    await service.load(tiny.wanted(tiny.a, 2))
    turns = await long_turns(service, 2, 0.7)
    await service.load(tiny.wanted(tiny.b, 3))
    split = [result for result in await asyncio.gather(*turns) if len(result.version_spans) == 2]
    assert split
    for result in split:
        cut = result.version_spans[0].end
        tokens = [*result.prompt_token_ids, *result.output_token_ids[:cut]]
        expected = logprobs(tiny.a, tokens, cut, 0.7)
        torch.testing.assert_close(torch.tensor(result.output_logprobs[:cut]), expected, atol=1e-4, rtol=0)


def cut_short(tiny: Tiny, version: int) -> Wanted:
    wanted = tiny.wanted(tiny.a, version)
    file = Path(wanted.uri) / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    return wanted


async def test_bad_weights_leave_the_last_good_ones_serving(service: Service, tiny: Tiny) -> None:
    await service.load(tiny.wanted(tiny.b, 10))
    before = await service.turn(ask(temperature=0))
    pauses = len((await service.state()).pauses)
    for wanted, message in (
        (cut_short(tiny, 11), "bytes, the manifest says"),
        (tiny.misshapen(12), r"tensor model.embed_tokens.weight is F32\[300, 96\]; the model has F32\[265, 64\]"),
        (Wanted(13, "/nowhere"), "manifest.json is missing"),
    ):
        with pytest.raises(InvalidArgument, match=message) as error:
            await service.load(wanted)
        assert (error.value.reason, error.value.facts["field"]) == ("WEIGHTS_REJECTED", "uri")
        state = await service.state()
        assert (state.served_version, state.announced_version, state.paused) == (10, wanted.version, False)
        assert f"version {wanted.version}: " in state.last_error
        assert len(state.pauses) == pauses
    after = await service.turn(ask(temperature=0))
    assert list(after.output_token_ids) == list(before.output_token_ids)


async def test_an_engine_that_cannot_load_gets_its_weights_back(service: Service, tiny: Tiny) -> None:
    """The checks before the pause are gone round, so that vLLM itself meets the wrong shapes."""
    await service.load(tiny.wanted(tiny.b, 20))
    before = await service.turn(ask(temperature=0))
    misshapen = Path(tiny.misshapen(21).uri)
    turns = await long_turns(service, 4, 0.7)
    engine = service.parts.vllm
    await engine.pause()
    with pytest.raises(Exception, match="shape|size|Call to collective_rpc"):
        await engine.load(misshapen)
    await engine.load(tiny.b)
    await engine.resume()
    assert all(result.output_token_ids for result in await asyncio.gather(*turns))
    after = await service.turn(ask(temperature=0))
    assert list(after.output_token_ids) == list(before.output_token_ids)


async def test_two_updates_at_a_time_are_refused(service: Service, tiny: Tiny) -> None:
    first, second = tiny.wanted(tiny.a, 30), tiny.wanted(tiny.b, 31)
    results = await asyncio.gather(service.load(first), service.load(second), return_exceptions=True)
    (refused,) = [result for result in results if isinstance(result, Aborted)]
    assert refused.reason == "UPDATE_RUNNING"
    assert (await service.state()).served_version in (30, 31)


async def test_a_dead_engine_is_said_so(tiny: Tiny) -> None:
    async with serving(tiny.a) as service:
        call = asyncio.create_task(service.turn(ask(temperature=0, most=LENGTH)))
        await eventually(lambda: service.parts.vllm.in_flight == 1)
        for process in service.parts.vllm._llm.engine_core.resources.engine_manager.processes:
            process.kill()
        with pytest.raises(ServiceError) as error:
            await call
        assert error.value.reason == "ENGINE_DEAD"
        assert service.parts.vllm.dead
        assert (await service.state()).requests_lost == 1
