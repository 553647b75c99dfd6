"""An episode as far as its events have told it: who works on what, and what was spent. Pure.

Invariant: it is a function of the messages of a watch alone, so that a resumed watch shows the same.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum

from wideseek.events.v1.trajectory_pb2 import AgentFinished, AgentStarted, StopReason
from wideseek.inference.v1.inference_service_pb2 import ToolCall
from wideseek.lead.v1 import lead_service_pb2 as pb


class AgentPhase(StrEnum):
    """Where an agent is in its life."""

    WORKING = "working"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass
class AgentView:
    """One agent. `doing` is its last step in words; times are in seconds of the epoch."""

    agent_id: str
    role: str
    parent: str
    prompt: str
    began: float
    ended: float = 0.0
    phase: AgentPhase = AgentPhase.WORKING
    turns: int = 0
    tool_calls: int = 0
    output_tokens: int = 0
    doing: str = ""
    versions: set[int] = field(default_factory=set)

    def seconds(self, now: float) -> float:
        """How long it has worked."""
        return max(0.0, (self.ended or now) - self.began)


@dataclass
class EpisodeView:
    """The whole episode. `episode` is the snapshot, later the finished one."""

    episode: pb.Episode = field(default_factory=pb.Episode)
    agents: dict[str, AgentView] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    def add(self, message: pb.WatchEpisodeResponse) -> list[str]:
        """Take in one message; returns what it says, as lines for people."""
        match message.WhichOneof("event"):
            case "snapshot":
                self.episode = message.snapshot
                self.began = message.snapshot.create_time.ToMicroseconds() / 1e6
                return [f"episode {message.snapshot.episode_id}: {message.snapshot.question}"]
            case "agent_started":
                return [self._started(message.agent_started, message.time.ToMicroseconds() / 1e6)]
            case "turn":
                return [self._turn(message.turn)]
            case "agent_finished":
                return [self._finished(message.agent_finished, message.time.ToMicroseconds() / 1e6)]
            case "finished":
                return [self._end(message.finished)]
            case _:
                return []  # an event of a newer service

    @property
    def totals(self) -> str:
        """What all agents spent, in words."""
        agents = list(self.agents.values())
        turns, calls = sum(a.turns for a in agents), sum(a.tool_calls for a in agents)
        tokens = sum(a.output_tokens for a in agents)
        versions = sorted(set[int]().union(*(a.versions for a in agents)))
        by = f", policy version {' and '.join(map(str, versions))}" if versions else ""
        counts = (
            _count(len(agents), "agent"),
            _count(turns, "turn"),
            _count(calls, "tool call"),
            _count(tokens, "token"),
        )
        return ", ".join(counts) + by

    def _started(self, started: AgentStarted, time: float) -> str:
        self.began = self.began or time
        self.agents[started.agent_id] = AgentView(
            started.agent_id, started.role, started.parent_agent_id, started.prompt, time
        )
        return f"{started.agent_id} starts: {started.prompt}"

    def _turn(self, turn: pb.AgentTurn) -> str:
        agent = self._agent(turn.agent_id)
        agent.turns = turn.turn
        # A subagent that was created is an agent of its own, not a tool call.
        agent.tool_calls += sum(tool.tool != "create_sub_agents" for tool in turn.tools)
        agent.output_tokens += turn.usage.output_tokens
        agent.versions.update(turn.policy_versions)
        agent.doing = _deed(turn)
        return f"{agent.agent_id} turn {turn.turn}: {agent.doing}"

    def _finished(self, finished: AgentFinished, time: float) -> str:
        agent = self._agent(finished.agent_id)
        agent.ended = time
        agent.phase = AgentPhase.FAILED if finished.error else AgentPhase.DONE
        if finished.error:
            agent.doing = f"{finished.error}: {finished.error_message}"
            return f"{agent.agent_id} failed: {agent.doing}"
        if agent.parent and finished.text:
            agent.doing = f"reports {_one_line(finished.text)}"
        return f"{agent.agent_id} is done: {_one_line(finished.text)}"

    def _end(self, episode: pb.Episode) -> str:
        self.episode = episode
        self.ended = episode.end_time.ToMicroseconds() / 1e6
        for agent in self.agents.values():
            if agent.phase is AgentPhase.WORKING:
                agent.phase, agent.ended = AgentPhase.STOPPED, self.ended
        return f"episode {episode.episode_id} {state_name(episode)}: {self.totals}, {self.ended - self.began:.1f} s"

    def _agent(self, agent_id: str) -> AgentView:
        """The agent; one whose start was not seen, because the watch began later, is made up."""
        return self.agents.setdefault(agent_id, AgentView(agent_id, "", "", "", self.began))


def state_name(episode: pb.Episode) -> str:
    """The state in words, with the reason where it says more."""
    state = pb.Episode.State.Name(episode.state).removeprefix("STATE_").lower()
    reason = StopReason.Name(episode.stop_reason).removeprefix("STOP_REASON_").lower()
    return state if reason in ("unspecified", "answered", "cancelled", "failed") else f"{state} ({reason})"


def _deed(turn: pb.AgentTurn) -> str:
    calls = list(turn.message.tool_calls)
    if not calls:
        return "answers"
    return "; ".join(_call(call) for call in calls)


def _call(call: ToolCall) -> str:
    if call.error:
        return f"malformed tool call: {call.error}"
    try:
        arguments = json.loads(call.arguments_json)
    except json.JSONDecodeError:
        return call.name
    match call.name:
        case "create_sub_agents":
            return f"asks {_count(len(_items(arguments, 'sub_agents')), 'subagent')}"
        case "search":
            queries = [str(item.get("query", "")) for item in _items(arguments, "queries")]
            return f"searches {', '.join(queries) or arguments.get('query', '')}"
        case "access":
            urls = [str(item.get("url", "")) for item in _items(arguments, "urls")]
            return f"reads {', '.join(urls) or arguments.get('url', '')}"
        case _:
            return str(call.name)


def _items(arguments: object, name: str) -> list[dict[str, object]]:
    items = arguments.get(name) if isinstance(arguments, dict) else None
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _one_line(text: str, width: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
