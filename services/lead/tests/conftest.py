"""A lead's surroundings for the tests: a real NATS server, a scripted model, subagents that do as they are told."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from google.protobuf import duration_pb2
from grpc import aio
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_grpc
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1 import lead_service_pb2_grpc as pb_grpc
from wideseek.subagent.v1 import subagent_service_pb2 as subagent
from wideseek.subagent.v1 import subagent_service_pb2_grpc as subagent_grpc
from wideseek_agent.messages import Message, Role
from wideseek_agent.pack import Shelf
from wideseek_agent.testing import INFERENCE, Script, ScriptedInference, call_text
from wideseek_contract.episodes import STREAM, decode, subject
from wideseek_kit.channels import open_channel
from wideseek_kit.serve import Readiness
from wideseek_kit.testing import NatsServer, grpc_server, nats_server
from wideseek_lead.servicer import SERVICE
from wideseek_lead.settings import LeadSettings
from wideseek_lead.wiring import Lead, open_lead

TABLE = "```markdown\n| Moon | Mass |\n|---|---|\n| Zark | 5 |\n| Quill | 7 |\n```"


class FakeSubagents(subagent_grpc.SubagentServiceServicer):
    """Each subtask reads one page and reports; `hold` stops them before the report, `fail` names prompts that fail."""

    def __init__(self) -> None:
        self.requests: list[subagent.RunSubtaskRequest] = []
        self.active = 0
        self.most_active = 0
        self.cancelled = 0
        self.hold: asyncio.Event | None = None
        self.pause = 0.0
        self.turns = 1
        self.page = ""
        self.fail: dict[str, Exception] = {}

    async def RunSubtask(
        self, request: subagent.RunSubtaskRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[subagent.RunSubtaskResponse, None]:
        self.requests.append(request)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            yield subagent.RunSubtaskResponse(sequence=1, progress=subagent.TurnProgress(turn=1, activity="access"))
            for number in range(1, self.turns + 1):
                await asyncio.sleep(self.pause)
                yield subagent.RunSubtaskResponse(sequence=1 + number, turn=_turn(request, number, self.page))
            if self.hold is not None:
                await self.hold.wait()
            if request.prompt in self.fail:
                raise self.fail[request.prompt]
            text = TABLE if request.role == subagent.SUBTASK_ROLE_SINGLE else f"report on {request.prompt}"
            yield subagent.RunSubtaskResponse(
                sequence=2 + self.turns, report=subagent.SubtaskReport(text=text, turns=self.turns)
            )
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1


def _turn(request: subagent.RunSubtaskRequest, number: int, page_end: str) -> events.Turn:
    page = events.ToolEvidence(
        tool="access",
        input=f"https://pages.test/{request.prompt}/{number}",
        bytes=40,
        latency=duration_pb2.Duration(nanos=5_000_000),
        found=[request.prompt],
        excerpt=f"{request.prompt} is a moon. Its mass is {number + 4}.{page_end}",
    )
    return events.Turn(
        agent_id=request.agent_id,
        turn=number,
        prompt_token_ids=[1, 2, 3],
        output_token_ids=[4, 5],
        output_logprobs=[-0.5, -0.25],
        version_spans=[inference.VersionSpan(version=3, start=0, end=2)],
        message=inference.Message(role=inference.ROLE_ASSISTANT, content="reading"),
        usage=inference.Usage(input_tokens=3, output_tokens=2),
        trainable=True,
        tools=[page],
    )


def broad(*prompts: str, answer: str = TABLE) -> Script:
    """A lead that delegates `prompts` at once and then answers."""

    def script(messages: Sequence[Message]) -> str:
        if messages[-1].role is Role.TOOL or len(messages) > 2:
            return answer
        return call_text("create_sub_agents", sub_agents=[{"prompt": prompt} for prompt in prompts])

    return script


class World:
    """Everything around the leads of one test."""

    def __init__(self, nats: NatsServer, settings: dict[str, Any]) -> None:
        self.nats = nats
        self.subagents = FakeSubagents()
        self.inference = ScriptedInference(broad("Zark", "Quill"))
        self.settings = settings
        self._stack = contextlib.AsyncExitStack()

    def play(self, script: Script) -> None:
        self.inference._script = script  # the model's words may change between episodes of a test

    async def open(self) -> None:
        def models(server: aio.Server) -> None:
            inference_grpc.add_InferenceServiceServicer_to_server(self.inference, server)

        def workers(server: aio.Server) -> None:
            subagent_grpc.add_SubagentServiceServicer_to_server(self.subagents, server)

        self.settings["inference"] = await self._stack.enter_async_context(grpc_server(models, INFERENCE))
        self.settings["subagent"] = await self._stack.enter_async_context(grpc_server(workers, "s"))

    async def close(self) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def replica(self, **changes: Any) -> AsyncIterator["Replica"]:
        settings = LeadSettings(**{**self.settings, **changes})
        async with open_lead(settings, Shelf(), Readiness()) as lead:

            def register(server: aio.Server) -> None:
                pb_grpc.add_LeadServiceServicer_to_server(lead.servicer, server)

            async with grpc_server(register, SERVICE) as target, open_channel(target) as channel:
                yield Replica(lead, pb_grpc.LeadServiceStub(channel))


class Replica:
    """One lead in this process with a client of it."""

    def __init__(self, lead: Lead, stub: pb_grpc.LeadServiceStub) -> None:
        self.lead = lead
        self.stub = stub

    async def create(self, question: str = "the moons and their mass", **fields: Any) -> pb.Episode:
        answer = await self.stub.CreateEpisode(pb.CreateEpisodeRequest(question=question, **fields))
        return answer.episode

    async def get(self, episode_id: str) -> pb.Episode:
        return (await self.stub.GetEpisode(pb.GetEpisodeRequest(episode_id=episode_id))).episode

    async def watch(self, episode_id: str, after: int = 0) -> list[pb.WatchEpisodeResponse]:
        request = pb.WatchEpisodeRequest(episode_id=episode_id, after_sequence=after)
        return [response async for response in self.stub.WatchEpisode(request, timeout=30)]

    async def ended(self, episode_id: str) -> pb.Episode:
        """The episode once its watch has ended."""
        return (await self.watch(episode_id))[-1].finished

    async def log(self, episode_id: str) -> list[events.TrajectoryEvent]:
        """What is stored of the episode."""
        bus = self.lead.canceller._bus
        found, place = [], 0
        info = await bus.jetstream.stream_info(STREAM, subjects_filter=subject(episode_id))
        for _ in range((info.state.subjects or {}).get(subject(episode_id), 0)):
            raw = await bus.jetstream.get_msg(STREAM, seq=place + 1, subject=subject(episode_id), next=True)
            assert raw.seq is not None
            assert raw.data is not None
            place = raw.seq
            found.append(decode(raw.data))
        return found


@pytest.fixture(scope="session", autouse=True)
def grpc_aio() -> Iterator[None]:
    """Keeps gRPC's poller for the session; one that stops and starts between tests may miss a wake-up."""
    aio.init_grpc_aio()
    yield
    aio.shutdown_grpc_aio()


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture
def script() -> Callable[..., Script]:
    return broad


@pytest.fixture
async def world(nats: NatsServer) -> AsyncIterator[World]:
    made = World(nats, {"nats_url": nats.url, "prompt_pack": "seed", "snapshot_interval": 0.1})
    await made.open()
    try:
        yield made
    finally:
        await made.close()
