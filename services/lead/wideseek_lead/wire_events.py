"""Trajectory events: made from what happens in an episode, folded back into its tally, shown to watchers.

Invariants: an event's id is the same at every try; what a watcher sees of a turn has no tokens.
"""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf import duration_pb2
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_agent.toolset import Evidence
from wideseek_contract.episodes import SCHEMA_VERSION, event_id

from wideseek_lead.core import ports
from wideseek_lead.core.episode import Episode
from wideseek_lead.core.tally import Tally
from wideseek_lead.wire import STOPS, sampling_to_wire, timestamp, training_to_wire

STARTED = "episode_started"
FINISHED = "episode_finished"


def envelope(
    episode: Episode, sequence: int, time: datetime, agent_id: str, kind: str, turn: int = 0
) -> events.TrajectoryEvent:
    """An event without its contents; `agent_id` is empty for the episode's own events."""
    return events.TrajectoryEvent(
        schema_version=SCHEMA_VERSION,
        event_id=event_id(episode.episode_id, agent_id or "episode", kind, turn),
        episode_id=episode.episode_id,
        sequence=sequence,
        time=timestamp(time),
        training=training_to_wire(episode.spec.training),
    )


def episode_started(episode: Episode) -> events.EpisodeStarted:
    """What an episode sets out to do."""
    spec = episode.spec
    return events.EpisodeStarted(
        question=spec.question,
        mode=spec.mode.value,
        answer_format=spec.answer_format.value,
        required_columns=spec.required_columns,
        key_columns=spec.key_columns,
        corpus=spec.corpus,
        prompt_pack=f"{spec.prompt_pack}/{spec.language}",
        sampling=sampling_to_wire(spec.sampling),
        model=spec.model,
    )


def agent_started(event: ports.AgentStarted) -> events.AgentStarted:
    """An agent's start."""
    return events.AgentStarted(
        agent_id=event.agent_id,
        role=event.role.value,
        parent_agent_id=event.parent_agent_id,
        parent_turn=event.parent_turn,
        prompt=event.prompt,
    )


def agent_finished(event: ports.AgentFinished) -> events.AgentFinished:
    """An agent's end."""
    return events.AgentFinished(
        agent_id=event.agent_id,
        turns=event.turns,
        text=event.text,
        error=event.error,
        error_message=event.error_message,
    )


def episode_finished(episode: Episode, tally: Tally) -> events.EpisodeFinished:
    """The end of an episode: what a complete log of it holds."""
    assert episode.stop is not None
    assert episode.end_time is not None
    duration = duration_pb2.Duration()
    duration.FromTimedelta(max(episode.end_time - episode.create_time, episode.create_time - episode.create_time))
    return events.EpisodeFinished(
        stop_reason=STOPS[episode.stop],
        error_message=episode.failure.message if episode.failure else "",
        answer=episode.answer.text if episode.answer else "",
        expected=[events.ExpectedTurns(agent_id=agent, turns=turns) for agent, turns in tally.turns.items()],
        output_tokens=tally.usage.output_tokens,
        duration=duration,
    )


def evidence_from_wire(items: Sequence[events.ToolEvidence]) -> tuple[Evidence, ...]:
    """Evidence as the agents know it."""
    return tuple(
        Evidence(
            tool=item.tool,
            input=item.input,
            error=item.error,
            bytes=item.bytes,
            latency_seconds=item.latency.ToNanoseconds() / 1e9,
            cache_hit=item.cache_hit,
            found=tuple(item.found),
            excerpt=item.excerpt,
        )
        for item in items
    )


def fold(tally: Tally, event: events.TrajectoryEvent) -> None:
    """Count a stored event."""
    kind = event.WhichOneof("event")
    if kind == "agent_started":
        tally.started(event.agent_started.agent_id)
    elif kind == "turn":
        turn = event.turn
        tally.turn(
            turn.agent_id,
            input_tokens=turn.usage.input_tokens,
            output_tokens=turn.usage.output_tokens,
            evidence=evidence_from_wire(turn.tools),
        )


def shown(event: events.TrajectoryEvent) -> pb.WatchEpisodeResponse | None:
    """What a watcher is shown of an event; None for the episode's own events, which the resource tells."""
    response = pb.WatchEpisodeResponse(sequence=event.sequence, time=event.time)
    kind = event.WhichOneof("event")
    if kind == "agent_started":
        response.agent_started.CopyFrom(event.agent_started)
    elif kind == "turn":
        response.turn.CopyFrom(_turn(event.turn))
    elif kind == "agent_finished":
        response.agent_finished.CopyFrom(event.agent_finished)
    else:
        return None
    return response


def _turn(turn: events.Turn) -> pb.AgentTurn:
    return pb.AgentTurn(
        agent_id=turn.agent_id,
        turn=turn.turn,
        message=turn.message,
        tools=turn.tools,
        usage=turn.usage,
        policy_versions=sorted({span.version for span in turn.version_spans}),
    )
