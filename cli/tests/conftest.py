"""A lead, a trainer and a corpus service of this process behind the real contract; commands run as a person does."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner, Result
from wideseek.events.v1 import trajectory_pb2 as events_pb
from wideseek.inference.v1 import inference_service_pb2 as inference_pb
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1 import lead_service_pb2_grpc as lead_grpc
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.trainer.v1 import trainer_service_pb2 as trainer_pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as trainer_grpc
from wideseek_kit.errors import InvalidArgument, NotFound
from wideseek_kit.testing import grpc_server


def at(seconds: float) -> Timestamp:
    """A time so many seconds after a fixed one."""
    stamp = Timestamp()
    stamp.FromMicroseconds(1_800_000_000_000_000 + round(seconds * 1e6))
    return stamp


def turn(agent: str, number: int, name: str = "", arguments: str = "", tools: int = 0) -> pb.AgentTurn:
    """A turn that calls one tool, or none."""
    calls = [inference_pb.ToolCall(name=name, arguments_json=arguments)] if name else []
    return pb.AgentTurn(
        agent_id=agent,
        turn=number,
        message=inference_pb.Message(content="", tool_calls=calls),
        tools=[events_pb.ToolEvidence(tool=name)] * tools,
        usage=inference_pb.Usage(output_tokens=10),
        policy_versions=[3],
    )


def finished(**changes: Any) -> pb.Episode:
    """The ended episode of the script."""
    episode = pb.Episode(
        episode_id="e1",
        question="Which moons?",
        state=pb.Episode.STATE_SUCCEEDED,
        stop_reason=events_pb.STOP_REASON_ANSWERED,
        create_time=at(0),
        end_time=at(2.5),
        answer=pb.Answer(
            text="```markdown\n| name | radius |\n|---|---|\n| Ada | 5 |\n| Bo | unknown |\n```",
            columns=["name", "radius"],
            rows=[
                pb.AnswerRow(cells=["Ada", "5"], sources=["https://a.test/Ada"]),
                pb.AnswerRow(cells=["Bo", "unknown"]),
            ],
        ),
        usage=pb.EpisodeUsage(agents=2, turns=3, tool_calls=1, output_tokens=30),
    )
    episode.MergeFrom(pb.Episode(**changes))
    return episode


def a_script() -> list[pb.WatchEpisodeResponse]:
    """A lead, one subagent that searches, one that fails."""
    started = events_pb.AgentStarted
    ended = events_pb.AgentFinished
    running = pb.Episode(episode_id="e1", question="Which moons?", state=pb.Episode.STATE_RUNNING, create_time=at(0))
    two = '{"sub_agents": [{"prompt": "a"}, {"prompt": "b"}]}'
    body: list[dict[str, Any]] = [
        {"snapshot": running},
        {"agent_started": started(agent_id="lead", role="lead", prompt="Which moons?")},
        {"agent_started": started(agent_id="s1", role="subagent", parent_agent_id="lead", prompt="Find Ada.")},
        {"agent_started": started(agent_id="s2", role="subagent", parent_agent_id="lead", prompt="Find Bo.")},
        {"turn": turn("s1", 1, "search", '{"queries": [{"query": "Ada", "count": 3}]}', tools=1)},
        {"agent_finished": ended(agent_id="s1", turns=1, text="Ada: radius 5.")},
        {"agent_finished": ended(agent_id="s2", error="UNAVAILABLE", error_message="tools are away")},
        {"turn": turn("lead", 1, "create_sub_agents", two, tools=2)},
        {"turn": turn("lead", 2)},
        {"agent_finished": ended(agent_id="lead", turns=2, text="| name |")},
        {"finished": finished()},
    ]
    return [pb.WatchEpisodeResponse(sequence=n, time=at(n / 5), **event) for n, event in enumerate(body)]


@dataclass
class FakeLead(lead_grpc.LeadServiceServicer):
    """Plays `messages`; a watch hangs after `hang_after` of them if that is set."""

    messages: list[pb.WatchEpisodeResponse] = field(default_factory=a_script)
    hang_after: int = 10**6
    created: list[pb.CreateEpisodeRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def CreateEpisode(self, request: Any, context: Any) -> pb.CreateEpisodeResponse:
        if not request.question:
            raise InvalidArgument("question", "is empty")
        self.created.append(request)
        return pb.CreateEpisodeResponse(episode=pb.Episode(episode_id="e1"))

    async def GetEpisode(self, request: Any, context: Any) -> pb.GetEpisodeResponse:
        return pb.GetEpisodeResponse(episode=finished())

    async def ListEpisodes(self, request: Any, context: Any) -> pb.ListEpisodesResponse:
        return pb.ListEpisodesResponse(episodes=[finished()], next_page_token="more")

    async def CancelEpisode(self, request: Any, context: Any) -> pb.CancelEpisodeResponse:
        self.cancelled.append(request.episode_id)
        return pb.CancelEpisodeResponse(
            episode=pb.Episode(state=pb.Episode.STATE_CANCELLED, stop_reason=events_pb.STOP_REASON_CANCELLED)
        )

    async def WatchEpisode(self, request: Any, context: Any) -> AsyncIterator[pb.WatchEpisodeResponse]:
        if request.episode_id != "e1":
            raise NotFound(f"no episode {request.episode_id}", reason="EPISODE_NOT_FOUND")
        for count, message in enumerate(self.messages):
            if count == self.hang_after:
                await asyncio.Event().wait()
            yield message


@dataclass
class FakeTrainer(trainer_grpc.TrainerServiceServicer):
    """A run of two updates."""

    created: list[trainer_pb.TrainingConfig] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)

    def run(self) -> trainer_pb.TrainingRun:
        config = trainer_pb.TrainingConfig(steps=2)
        state = trainer_pb.TrainingRun.STATE_SUCCEEDED
        return trainer_pb.TrainingRun(run_id="r1", config=config, state=state, steps_done=2, policy_version=2)

    async def CreateTrainingRun(self, request: Any, context: Any) -> trainer_pb.CreateTrainingRunResponse:
        self.created.append(request.config)
        return trainer_pb.CreateTrainingRunResponse(run=self.run())

    async def GetTrainingRun(self, request: Any, context: Any) -> trainer_pb.GetTrainingRunResponse:
        if request.run_id != "r1":
            raise NotFound(f"no run {request.run_id}", reason="TRAINING_RUN_NOT_FOUND")
        return trainer_pb.GetTrainingRunResponse(run=self.run())

    async def ListTrainingRuns(self, request: Any, context: Any) -> trainer_pb.ListTrainingRunsResponse:
        return trainer_pb.ListTrainingRunsResponse(runs=[self.run()])

    async def CancelTrainingRun(self, request: Any, context: Any) -> trainer_pb.CancelTrainingRunResponse:
        return trainer_pb.CancelTrainingRunResponse(run=self.run())

    async def WatchTrainingRun(self, request: Any, context: Any) -> AsyncIterator[trainer_pb.WatchTrainingRunResponse]:
        yield trainer_pb.WatchTrainingRunResponse(snapshot=self.run())
        for step in (1, 2):
            metrics = {"item_f1": 0.25 * step, "reward": 0.3 * step, "loss": -0.01, "staleness_max": 1.0}
            made = trainer_pb.TrainingStep(
                step=step, policy_version=step, metrics=metrics, seconds={"wait": 1, "learn": 2}
            )
            yield trainer_pb.WatchTrainingRunResponse(step=made)
        yield trainer_pb.WatchTrainingRunResponse(finished=self.run())

    async def ListPolicies(self, request: Any, context: Any) -> trainer_pb.ListPoliciesResponse:
        policy = trainer_pb.Policy(version=2, run_id="r1", step=2, metrics={"item_f1": 0.5}, uri="/p/2", current=True)
        return trainer_pb.ListPoliciesResponse(policies=[policy])

    async def GetPolicy(self, request: Any, context: Any) -> trainer_pb.GetPolicyResponse:
        return trainer_pb.GetPolicyResponse()

    async def PromotePolicy(self, request: Any, context: Any) -> trainer_pb.PromotePolicyResponse:
        self.promoted.append(request.version)
        return trainer_pb.PromotePolicyResponse(policy=trainer_pb.Policy(version=request.version))


@dataclass
class FakeCorpus(corpus_grpc.CorpusServiceServicer):
    """Keeps what it is given."""

    pages: list[corpus_pb.Page] = field(default_factory=list)

    async def IngestPages(self, request_iterator: Any, context: Any) -> corpus_pb.IngestPagesResponse:
        async for request in request_iterator:
            self.pages.extend(request.pages)
        return corpus_pb.IngestPagesResponse(stored=len(self.pages))

    async def ListCorpora(self, request: Any, context: Any) -> corpus_pb.ListCorporaResponse:
        return corpus_pb.ListCorporaResponse(corpora=[corpus_pb.Corpus(name="moons", pages=len(self.pages))])


@dataclass
class Suite:
    """The fakes, where they are, and a way to run commands on them."""

    lead: FakeLead
    trainer: FakeTrainer
    corpus: FakeCorpus
    environment: dict[str, str]

    def run(self, *arguments: str) -> Result:
        """Run `wideseek` with these arguments in this process."""
        from wideseek_cli.main import app

        return CliRunner().invoke(app, list(arguments), env={**self.environment, "COLUMNS": "200"})


@pytest.fixture
def script() -> list[pb.WatchEpisodeResponse]:
    return a_script()


@pytest.fixture
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    fakes = FakeLead(), FakeTrainer(), FakeCorpus()
    home = tmp_path_factory.mktemp("home")

    def register(server: Any) -> None:
        lead_grpc.add_LeadServiceServicer_to_server(fakes[0], server)
        trainer_grpc.add_TrainerServiceServicer_to_server(fakes[1], server)
        corpus_grpc.add_CorpusServiceServicer_to_server(fakes[2], server)

    with _in_thread(register) as target:
        targets = {f"WIDESEEK_{name}_TARGET": target for name in ("LEAD", "TRAINER", "TOOLS")}
        yield Suite(*fakes, {**targets, "WIDESEEK_HOME": str(home)})


@contextlib.contextmanager
def _in_thread(register: Callable[[Any], None]) -> Iterator[str]:
    """The servers have a loop of their own, for the commands bring theirs."""
    target: list[str] = []
    serving, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with grpc_server(register) as address:
            target.append(address)
            serving.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    serving.wait(20)
    try:
        yield target[0]
    finally:
        stop.set()
        thread.join(20)
