"""The scripted expert: a lead and its subagents that answer a task, with the habits they are given.

Invariants: one subagent an entity unless a habit says otherwise; at most ten a call; a reply names only what its
agent was told; when a failure or a budget cut the work short, the table lists every known member, with `unknown`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from wideseek_agent.messages import AgentRole
from wideseek_agent.pack import Pack, Report

from wideseek_atlas.desk import Desk
from wideseek_atlas.habits import Habits, Mixture
from wideseek_atlas.tasks import Task, markdown_table
from wideseek_atlas.transcript import Transcript
from wideseek_atlas.world import World, page_url

UNKNOWN = "unknown"
CALL_LIMIT = 10
"""Subagents a call of `create_sub_agents` may ask for."""

_FEW = 2
_CUT = 3
_CRAM = 2
_LEAD_LIMITS = (10, 10, 10, 10, 5, 6, 8, 12, 15, 20)
_SUBAGENT_LIMITS = (20, 20, 20, 20, 5, 8, 10, 12, 16, 30)
_FAILED = Report(error="no report")


@dataclass(frozen=True)
class Demonstration:
    """An episode's transcripts (the lead's last) and its answer."""

    transcripts: tuple[Transcript, ...]
    answer: str


def list_prompt(task: Task) -> str:
    """What the first subagent is asked."""
    return f"Find the {task.group.category.plural} of {task.group.name}."


def entity_prompt(names: Sequence[str], attributes: Sequence[str]) -> str:
    """What a subagent is asked about one entity (or, by a bad habit, several)."""
    return f"Find for {', '.join(names)}: {', '.join(attributes)}."


def table(columns: Sequence[str], names: Sequence[str], found: dict[str, dict[str, str]]) -> str:
    """The fenced answer: a row a name, `unknown` where nothing was found; the first column is the name."""
    rows = tuple((name, *(found.get(name, {}).get(c, UNKNOWN) for c in columns[1:])) for name in names)
    return f"```markdown\n{markdown_table(tuple(columns), rows)}\n```"


class Expert:
    """Demonstrates multi-agent episodes in one world."""

    def __init__(self, world: World, pack: Pack, rng: random.Random, mixture: Mixture, *, steady: bool = False) -> None:
        """`steady` takes the search's ranks as they are."""
        self._desk = Desk(world, pack, rng, steady=steady)
        self._pack = pack
        self._rng = rng
        self._mixture = mixture

    def demonstrate(self, task: Task) -> Demonstration:
        """One episode on `task`, with habits and mishaps drawn from the mixture."""
        return _Episode(task, self._desk, self._pack, self._rng, self._mixture).play()


class _Episode:
    def __init__(self, task: Task, desk: Desk, pack: Pack, rng: random.Random, mixture: Mixture) -> None:
        self._task = task
        self._desk = desk
        self._pack = pack
        self._rng = rng
        self._habits: Habits = mixture.draw(rng)
        self._mishap = mixture.mishap
        self._limit = rng.choice(_LEAD_LIMITS)
        self._done: list[Transcript] = []
        opening = pack.opening(
            AgentRole.LEAD, task.question, columns=task.columns, key_columns=task.key_columns, max_turns=self._limit
        )
        self._lead = Transcript(AgentRole.LEAD, opening)

    def play(self) -> Demonstration:
        known = self._ask_for_members()
        found: dict[str, dict[str, str]] = {}
        troubled = known is None
        if known and self._strikes(0.3):
            troubled = True
            self._lead.see([self._pack.final_notice()])
        elif known:
            troubled = self._ask_for_facts(known, found)
        names = (known or []) if troubled else list(found)
        answer = table(self._columns(), names, found)
        self._lead.say(answer)
        return Demonstration((*self._done, self._lead), answer)

    def _columns(self) -> tuple[str, ...]:
        columns = self._task.columns
        return columns[:-1] if self._habits.drop and len(columns) > 2 else columns

    def _strikes(self, share: float) -> bool:
        """Whether a mishap that is `share` of all mishaps happens here."""
        return self._rng.random() < self._mishap * share

    # ---- the lead

    def _ask_for_members(self) -> list[str] | None:
        failed_before = False
        while True:
            prompt = list_prompt(self._task)
            self._lead.call("create_sub_agents", {"sub_agents": [{"prompt": prompt}]})
            failed = self._strikes(0.15)
            known, report = (None, _FAILED) if failed else self._find_members(prompt)
            self._see_reports([report])
            if not failed or failed_before:
                return known
            failed_before = True

    def _ask_for_facts(self, known: list[str], found: dict[str, dict[str, str]]) -> bool:
        """Ask, and fill `found` in the order of the reports; returns whether something went wrong."""
        work = known[:_FEW] if self._habits.few else known
        size = _CRAM if self._habits.cram else 1
        shares = [work[i : i + size] for i in range(0, len(work), size)]
        plan = f"{'few' if self._habits.few else 'all'}, {'two' if self._habits.cram else 'one'} each."
        while shares:
            batch, shares = shares[:CALL_LIMIT], shares[CALL_LIMIT:]
            prompts = [entity_prompt(names, self._task.attributes) for names in batch]
            self._lead.call("create_sub_agents", {"sub_agents": [{"prompt": p} for p in prompts]}, plan)
            if self._collect(batch, prompts, found):
                return True
            plan = "rest, " + plan.split(", ")[1]
        return False

    def _collect(self, batch: list[list[str]], prompts: list[str], found: dict[str, dict[str, str]]) -> bool:
        failing, notice = self._accidents(len(batch))
        reports = []
        for number, (names, prompt) in enumerate(zip(batch, prompts, strict=True)):
            if number in failing:
                reports.append(_FAILED)
                continue
            found[names[0]], report = self._describe(names[0], prompt)
            reports.append(report)
        self._see_reports(reports)
        if notice:
            self._lead.see([self._pack.final_notice()])
        return bool(failing) or notice

    def _accidents(self, asked: int) -> tuple[set[int], bool]:
        """Which of the subagents asked for fail, and whether the budget ends with their reports."""
        if self._strikes(0.5):  # the subagents are spent: the first ones work, the rest never start
            return set(range(self._rng.randrange(asked), asked)), self._rng.random() < 0.2
        if self._strikes(0.3):
            return set(self._rng.sample(range(asked), min(asked, self._rng.choice((1, 1, 2))))), False
        return set(), self._strikes(0.2)

    def _see_reports(self, reports: list[Report]) -> None:
        self._lead.see([self._pack.reports(reports, turn=self._lead.turn, limit=self._limit)])

    # ---- the subagents

    def _find_members(self, prompt: str) -> tuple[list[str] | None, Report]:
        group = self._task.group
        plural = group.category.plural
        agent, limit = self._open(prompt)
        nothing = self._strikes(0.15)
        self._search(agent, limit, f"{plural} of {group.name}", group.name, empty=nothing)
        if nothing:
            agent.say(f"No {plural} of {group.name} found.")
            return None, Report(agent.messages[-1].content)
        self._access(agent, limit, group.name, plural)
        known = list(group.members[:_CUT] if self._habits.cut else group.members)
        agent.say(f"{'Some' if self._habits.cut else 'All'} {plural} of {group.name}: {', '.join(known)}.")
        return known, Report(agent.messages[-1].content)

    def _describe(self, name: str, prompt: str) -> tuple[dict[str, str], Report]:
        attributes = self._task.attributes
        agent, limit = self._open(prompt)
        nothing = self._strikes(0.06)
        seen = self._search(agent, limit, f"{name} {' '.join(attributes)}", name, empty=nothing)
        facts = self._desk.claims[name] if seen else {}
        cut_short = self._strikes(0.06)
        if cut_short:
            agent.see([self._pack.final_notice()])
        elif not nothing and self._rng.random() >= self._habits.snippet:
            unreadable = self._strikes(0.06)
            self._access(agent, limit, name, ", ".join(attributes), fails=unreadable)
            facts = {} if unreadable else self._task.group.facts[name]
        told = {a: facts.get(a, UNKNOWN) for a in attributes}
        agent.say(f"{name}: {', '.join(f'{a} {v}' for a, v in told.items())}.")
        return told, Report(agent.messages[-1].content)

    def _open(self, prompt: str) -> tuple[Transcript, int]:
        limit = self._rng.choice(_SUBAGENT_LIMITS)
        agent = Transcript(AgentRole.SUBAGENT, self._pack.opening(AgentRole.SUBAGENT, prompt, max_turns=limit))
        self._done.append(agent)
        return agent, limit

    def _search(self, agent: Transcript, limit: int, query: str, about: str, *, empty: bool) -> bool:
        agent.call("search", {"queries": [{"query": query}]})
        message, seen = self._desk.search(query, about, turn=agent.turn, limit=limit, empty=empty)
        agent.see([message])
        return seen

    def _access(self, agent: Transcript, limit: int, title: str, info: str, *, fails: bool = False) -> None:
        agent.call("access", {"urls": [{"url": page_url(title), "info_to_extract": info}]})
        agent.see([self._desk.read(title, turn=agent.turn, limit=limit, fails=fails)])
