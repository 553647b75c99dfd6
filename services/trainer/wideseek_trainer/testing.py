"""For tests: a tiny policy, a lead that plays scripted episodes onto a real stream, learners in this process."""

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.lead.v1 import lead_service_pb2 as lead
from wideseek.lead.v1 import lead_service_pb2_grpc as rpc
from wideseek_contract import episodes
from wideseek_kit.bus import Bus
from wideseek_kit.errors import AlreadyExists

from wideseek_trainer.core.learner import Learner, LearnerSpec
from wideseek_trainer.core.sequences import TrainSequence

VOCABULARY = 64


def tiny_policy(directory: Path, seed: int = 7) -> Path:
    """Write a two-layer Qwen3 with random weights; the same for the same seed."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    return directory


def task_line(number: int) -> dict[str, Any]:
    """A task with two rows, as a line of a task set holds it."""
    table = f"| name | size |\n|---|---|\n| a{number} | 1 |\n| b{number} | 2 |"
    return {
        "question": f"Which things has box {number}?",
        "answer": table,
        "unique_columns": ["name"],
        "is_markdown": True,
        "instance_id": f"task-{number}",
        "language": "en",
        "corpus": "boxes",
    }


def write_tasks(path: Path, count: int) -> Path:
    """Write a task set."""
    path.write_text("\n".join(json.dumps(task_line(number)) for number in range(count)) + "\n", encoding="utf-8")
    return path


class LocalLearners:
    """The `Learners` port with one learner in this process."""

    def __init__(self, spec: LearnerSpec) -> None:
        """Prepare; `start` loads."""
        self._spec = spec
        self.learner: Learner | None = None

    async def start(self, base: Path, resume: Path | None) -> None:
        """Load the model."""
        torch.set_num_threads(1)
        self.learner = await asyncio.to_thread(Learner, self._spec)
        if resume is not None:
            await asyncio.to_thread(self.learner.load, resume)

    async def update(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        """Make one update."""
        assert self.learner is not None
        return await asyncio.to_thread(self.learner.update, sequences)

    async def save(self, directory: Path) -> None:
        """Write weights and state."""
        assert self.learner is not None
        await asyncio.to_thread(self.learner.save, directory)


@contextlib.asynccontextmanager
async def local_learners(spec: LearnerSpec) -> AsyncIterator[LocalLearners]:
    """One learner in this process."""
    yield LocalLearners(spec)


def scripted_log(request: lead.CreateEpisodeRequest, episode: str, version: int) -> list[events.TrajectoryEvent]:
    """A whole episode of a lead with one subagent, a pure function of the request; right half the time."""
    rng = random.Random(request.request_id)
    log: list[events.TrajectoryEvent] = []

    def add(agent: str, kind: str, number: int = 0, **body: Any) -> None:
        event = events.TrajectoryEvent(
            schema_version=1,
            event_id=episodes.event_id(episode, agent, kind, number),
            episode_id=episode,
            sequence=len(log) + 1,
            training=request.training,
            **body,
        )
        event.time.GetCurrentTime()
        log.append(event)

    def turn(agent: str, number: int, **more: Any) -> None:
        output = [rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(2, 9))]
        body = events.Turn(
            agent_id=agent,
            turn=number,
            prompt_token_ids=[rng.randrange(2, VOCABULARY) for _ in range(rng.randrange(3, 12))],
            output_token_ids=output,
            output_logprobs=[-4.16 + rng.uniform(-0.2, 0.2) for _ in output],
            version_spans=[inference.VersionSpan(version=version, start=0, end=len(output))],
            finish_reason=inference.FINISH_REASON_STOP,
            trainable=True,
            **more,
        )
        add(agent, "turn", number, turn=body)

    started = events.EpisodeStarted(question=request.question, mode="multi", answer_format="table")
    add("lead", "episode_started", episode_started=started)
    add("lead", "agent_started", agent_started=events.AgentStarted(agent_id="lead", role="lead"))
    turn("lead", 1)
    add("s1", "agent_started", agent_started=events.AgentStarted(agent_id="s1", role="subagent"))
    turn("s1", 1, tools=[events.ToolEvidence(tool="access", input="box://1", bytes=10)])
    turn("s1", 2)
    add("s1", "agent_finished", agent_finished=events.AgentFinished(agent_id="s1", turns=2, text="report"))
    turn("lead", 2)
    number = request.training.task_id.rsplit("-", 1)[-1]
    second = "2" if (request.training.index + int(number)) % 2 else "9"
    answer = f"```markdown\n| name | size |\n|---|---|\n| a{number} | 1 |\n| b{number} | {second} |\n```"
    add("lead", "agent_finished", agent_finished=events.AgentFinished(agent_id="lead", turns=2, text=answer))
    expected = [events.ExpectedTurns(agent_id="lead", turns=2), events.ExpectedTurns(agent_id="s1", turns=2)]
    end = events.EpisodeFinished(stop_reason=events.STOP_REASON_ANSWERED, answer=answer, expected=expected)
    add("lead", "episode_finished", episode_finished=end)
    return log


class ScriptedLead(rpc.LeadServiceServicer):
    """A lead without agents: each new request plays its scripted episode onto the stream, at once."""

    def __init__(self, bus: Bus, version: int = 0) -> None:
        """Episodes are labelled with `version`."""
        self._bus = bus
        self.version = version
        self.requests: dict[str, lead.CreateEpisodeRequest] = {}
        self.calls = 0
        self.cancelled: list[str] = []
        self.playing = asyncio.Event()
        self.playing.set()

    async def CreateEpisode(self, request: lead.CreateEpisodeRequest, context: Any) -> lead.CreateEpisodeResponse:
        """Play the episode unless it was played."""
        self.calls += 1
        episode = "ep-" + hashlib.sha256(request.request_id.encode()).hexdigest()[:16]
        earlier = self.requests.setdefault(request.request_id, request)
        if earlier != request:
            raise AlreadyExists("the same request_id with other contents", reason="REQUEST_ID_REUSED")
        if earlier is request and self.playing.is_set():
            for event in self.log(request, episode):
                await self._bus.publish(episodes.subject(episode), event.SerializeToString(), event.event_id)
        return lead.CreateEpisodeResponse(episode=lead.Episode(episode_id=episode))

    def log(self, request: lead.CreateEpisodeRequest, episode: str) -> list[events.TrajectoryEvent]:
        """The events of an episode; tests may override it."""
        return scripted_log(request, episode, self.version)

    async def CancelEpisode(self, request: lead.CancelEpisodeRequest, context: Any) -> lead.CancelEpisodeResponse:
        """Note it."""
        self.cancelled.append(request.episode_id)
        return lead.CancelEpisodeResponse()

    async def GetEpisode(self, request: lead.GetEpisodeRequest, context: Any) -> lead.GetEpisodeResponse:
        """Not played."""
        raise NotImplementedError

    async def ListEpisodes(self, request: lead.ListEpisodesRequest, context: Any) -> lead.ListEpisodesResponse:
        """Not played."""
        raise NotImplementedError

    async def WatchEpisode(
        self, request: lead.WatchEpisodeRequest, context: Any
    ) -> AsyncIterator[lead.WatchEpisodeResponse]:
        """Not played."""
        raise NotImplementedError
        yield lead.WatchEpisodeResponse()  # type: ignore[unreachable]  # it makes this an async generator
