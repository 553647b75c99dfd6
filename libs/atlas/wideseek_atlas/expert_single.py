"""The scripted expert of single-agent mode: one agent searches, reads page after page, and writes the table.

Invariant: it reads the list page, then a page a member in the list's order, one tool call a turn.
"""

import random

from wideseek_agent.messages import AgentRole
from wideseek_agent.pack import Pack

from wideseek_atlas.desk import Desk
from wideseek_atlas.expert import Demonstration, table
from wideseek_atlas.habits import Mixture
from wideseek_atlas.tasks import Task
from wideseek_atlas.transcript import Transcript
from wideseek_atlas.world import World, page_url

MAX_MEMBERS = 8
"""Larger groups are not demonstrated: the conversation would outgrow the seed policy's context."""

_FEW = 2
_LIMITS = (50, 50, 50, 50, 20, 25, 30, 40)


class SingleExpert:
    """Demonstrates single-agent episodes in one world; of the habits it has `few` and `drop`."""

    def __init__(self, world: World, pack: Pack, rng: random.Random, mixture: Mixture, *, steady: bool = False) -> None:
        """`steady` takes the search's ranks as they are."""
        self._desk = Desk(world, pack, rng, steady=steady)
        self._pack = pack
        self._rng = rng
        self._mixture = mixture

    def demonstrate(self, task: Task) -> Demonstration:
        """One episode on `task`, a group of at most `MAX_MEMBERS` members."""
        habits, limit, group = self._mixture.draw(self._rng), self._rng.choice(_LIMITS), task.group
        opening = self._pack.opening(
            AgentRole.SINGLE, task.question, columns=task.columns, key_columns=task.key_columns, max_turns=limit
        )
        agent = Transcript(AgentRole.SINGLE, opening)
        query = f"{group.category.plural} of {group.name}"
        agent.call("search", {"query": query})
        agent.see([self._desk.search(query, group.name, turn=1, limit=limit)[0]])
        self._access(agent, group.name, group.category.plural, limit)
        names = group.members[:_FEW] if habits.few else group.members
        interrupted = self._rng.random() < self._mixture.mishap * 0.4
        stop = self._rng.randrange(len(names)) if interrupted else len(names)
        for name in names[:stop]:
            self._access(agent, name, ", ".join(task.attributes), limit)
        if interrupted:
            agent.see([self._pack.final_notice()])
        columns = task.columns[:-1] if habits.drop and len(task.columns) > 2 else task.columns
        found = {name: group.facts[name] for name in names[:stop]}
        answer = table(columns, group.members if interrupted else names, found)
        agent.say(answer)
        return Demonstration((agent,), answer)

    def _access(self, agent: Transcript, title: str, info: str, limit: int) -> None:
        agent.call("access", {"url": page_url(title), "info_to_extract": info})
        agent.see([self._desk.read(title, turn=agent.turn, limit=limit)])
