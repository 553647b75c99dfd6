"""Plays episodes in one process: the protocol of the services, in little, to see how a policy does.

Invariants: an agent's conversation is one growing token sequence, never tokenised again; the budgets hold; a budget
that ends makes the agent answer with what it has.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from wideseek_agent.messages import AgentRole, Message
from wideseek_agent.pack import Hit, Pack, PageResult, Report, SearchResult

from wideseek_atlas.scoring import item_f1
from wideseek_atlas.search import Index
from wideseek_atlas.seed.model import SeedModel
from wideseek_atlas.seed.render import Renderer
from wideseek_atlas.seed.sampler import sample
from wideseek_atlas.tasks import Task
from wideseek_atlas.world import World

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_REPLY_TOKENS = {AgentRole.LEAD: 640, AgentRole.SUBAGENT: 128, AgentRole.SINGLE: 400}


@dataclass(frozen=True)
class Budget:
    """The limits of an episode: subagents in all, subagents a call, and each role's turns."""

    subagents: int = 20
    subagents_a_call: int = 10
    lead_turns: int = 10
    subagent_turns: int = 20
    single_turns: int = 50


@dataclass
class Agent:
    """One agent's conversation: ids, which of them it generated, and their logprobs (0 for the others)."""

    role: AgentRole
    limit: int
    ids: list[int]
    generated: list[bool]
    logprobs: list[float]
    prompt: str = ""
    turns: int = 0
    pages_read: int = 0
    reply: str | None = None

    @property
    def done(self) -> bool:
        """Whether the agent has given its last reply."""
        return self.reply is not None


@dataclass
class Episode:
    """One episode on one task."""

    world: World
    task: Task
    lead: Agent
    subagents: list[Agent] = field(default_factory=list)

    @property
    def agents(self) -> list[Agent]:
        """The lead and its subagents."""
        return [self.lead, *self.subagents]

    @property
    def answer(self) -> str:
        """The last reply's text; empty while there is none."""
        return self.lead.reply or ""

    @property
    def score(self) -> float:
        """Item-F1."""
        return item_f1(self.answer, self.task)


class Player:
    """Plays with one policy; `seed` decides the samples."""

    def __init__(
        self, model: SeedModel, tokenizer: PreTrainedTokenizerFast, budget: Budget, temperature: float, seed: int = 0
    ) -> None:
        """Greedy at temperature 0."""
        self._model, self._tokenizer, self._budget, self._temperature = model, tokenizer, budget, temperature
        self._renderer = Renderer(tokenizer)
        self._pack = Pack.load("seed", "en")
        self._generator = torch.Generator().manual_seed(seed)
        self._indexes: dict[str, Index] = {}

    def play(self, tasks: Sequence[tuple[World, Task]], *, single: bool = False) -> list[Episode]:
        """One episode a task, all at the same time."""
        role = AgentRole.SINGLE if single else AgentRole.LEAD
        limit = self._budget.single_turns if single else self._budget.lead_turns
        episodes = [Episode(world, task, self._open(role, task.question, limit, task)) for world, task in tasks]
        while active := [episode for episode in episodes if not episode.lead.done]:
            calls = self._turn([episode.lead for episode in active])
            waiting = [(e, c) for e, c in zip(active, calls, strict=True) if not e.lead.done]
            if single:
                for episode, call in waiting:
                    self._use_tool(episode.lead, call, episode.world)
            else:
                self._delegate(waiting)
        return episodes

    def _open(self, role: AgentRole, text: str, limit: int, task: Task) -> Agent:
        opening = self._pack.opening(role, text, columns=task.columns, key_columns=task.key_columns, max_turns=limit)
        ids = self._renderer.told(opening, first=True)
        return Agent(role, limit, ids, [False] * len(ids), [0.0] * len(ids), prompt=text)

    def _turn(self, agents: Sequence[Agent]) -> list[dict[str, Any] | str]:
        """Let each agent speak once; returns its tool call, or why the call is malformed ('' for a last reply)."""
        stop = self._renderer.encode("<|im_end|>")[0]
        results: list[dict[str, Any] | str] = []
        samples = sample(
            self._model,
            [agent.ids for agent in agents],
            stop=stop,
            limit=max(_REPLY_TOKENS[agent.role] for agent in agents),
            temperature=self._temperature,
            generator=self._generator,
        )
        for agent, drawn in zip(agents, samples, strict=True):
            agent.ids = agent.ids + drawn.ids
            agent.generated = agent.generated + [True] * len(drawn.ids)
            agent.logprobs = agent.logprobs + drawn.logprobs
            agent.turns += 1
            ended = bool(drawn.ids) and drawn.ids[-1] == stop
            text = str(self._tokenizer.decode(drawn.ids[:-1] if ended else drawn.ids))
            call = _parse_call(text) if ended else None
            if call is None or agent.turns >= agent.limit:
                agent.reply = text
            results.append("" if call is None else call)
        return results

    def _hear(self, agent: Agent, message: Message) -> None:
        messages = [message, self._pack.final_notice()] if agent.turns >= agent.limit - 1 else [message]
        self._append(agent, messages)

    def _append(self, agent: Agent, messages: Sequence[Message]) -> None:
        ids = self._renderer.told(messages, first=False)
        agent.ids = agent.ids + ids
        agent.generated = agent.generated + [False] * len(ids)
        agent.logprobs = agent.logprobs + [0.0] * len(ids)

    def _delegate(self, waiting: Sequence[tuple[Episode, dict[str, Any] | str]]) -> None:
        """Run the subagents asked for; those beyond the episode's budget are reported as failed."""
        started: list[tuple[Episode, list[Agent], int]] = []
        for episode, call in waiting:
            prompts = _prompts(call, self._budget.subagents_a_call)
            if isinstance(prompts, str):
                lead = episode.lead
                self._hear(lead, self._pack.bad_call(prompts, turn=lead.turns, limit=lead.limit))
                continue
            left = self._budget.subagents - len(episode.subagents)
            limit = self._budget.subagent_turns
            agents = [self._open(AgentRole.SUBAGENT, prompt, limit, episode.task) for prompt in prompts[:left]]
            episode.subagents += agents
            started.append((episode, agents, len(prompts) - len(agents)))
        self._run_subagents([(episode.world, agent) for episode, agents, _ in started for agent in agents])
        for episode, agents, refused in started:
            reports = [Report(agent.reply or "") for agent in agents] + [Report(error="not started")] * refused
            lead = episode.lead
            self._hear(lead, self._pack.reports(reports, turn=lead.turns, limit=lead.limit))

    def _run_subagents(self, agents: Sequence[tuple[World, Agent]]) -> None:
        while active := [(world, agent) for world, agent in agents if not agent.done]:
            calls = self._turn([agent for _, agent in active])
            for (world, agent), call in zip(active, calls, strict=True):
                if not agent.done:
                    self._use_tool(agent, call, world)

    def _use_tool(self, agent: Agent, call: dict[str, Any] | str, world: World) -> None:
        self._hear(agent, self._answer_call(agent, call, world))

    def _answer_call(self, agent: Agent, call: dict[str, Any] | str, world: World) -> Message:
        where = {"turn": agent.turns, "limit": agent.limit}
        if isinstance(call, str):
            return self._pack.bad_call(call, **where)
        plural = agent.role is AgentRole.SUBAGENT
        arguments = call["arguments"]
        try:
            if call["name"] == "search":
                queries = arguments["queries"] if plural else [arguments]
                return self._pack.search([self._search(world, str(q["query"])) for q in queries], **where)
            if call["name"] == "access":
                urls = arguments["urls"] if plural else [arguments]
                agent.pages_read += 1
                return self._pack.pages([_read(world, str(u["url"])) for u in urls], **where)
        except (KeyError, TypeError) as error:
            return self._pack.bad_call(f"bad arguments: {error}", **where)
        return self._pack.bad_call(f"no tool {call['name']}", **where)

    def _search(self, world: World, query: str) -> SearchResult:
        index = self._indexes.setdefault(world.corpus, Index(world.pages))
        hits = tuple(Hit(page.title, page.url, page.snippet) for page in index.search(query))
        return SearchResult(query, hits)


def _read(world: World, url: str) -> PageResult:
    texts = {page.url: page.text for page in world.pages}
    return PageResult(url, texts[url]) if url in texts else PageResult(url, error="page not found")


def _parse_call(text: str) -> dict[str, Any] | str | None:
    """The tool call in a reply, why it is malformed, or None when there is none."""
    found = _CALL.search(text)
    if found is None:
        return None
    try:
        call = json.loads(found.group(1))
    except ValueError as error:
        return f"malformed call: {error}"
    if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict) or "name" not in call:
        return "malformed call: no name and arguments"
    return call


def _prompts(call: dict[str, Any] | str, most: int) -> list[str] | str:
    if isinstance(call, str):
        return call
    agents = call["arguments"].get("sub_agents")
    if call["name"] != "create_sub_agents" or not isinstance(agents, list) or not agents:
        return f"no tool {call['name']} with sub_agents"
    if not all(isinstance(agent, dict) and isinstance(agent.get("prompt"), str) for agent in agents):
        return "sub_agents need a prompt each"
    if len(agents) > most:
        return f"sub_agents: {len(agents)} given, at most {most}"
    return [agent["prompt"] for agent in agents]
