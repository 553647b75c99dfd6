"""Training batches: demonstrations of fresh worlds, bucketed by length, and copy drills.

Invariant: a pure function of the seed and of the order of calls; no world is used twice.
"""

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from wideseek_agent.pack import Pack

from wideseek_atlas.expert import Expert
from wideseek_atlas.expert_single import MAX_MEMBERS, SingleExpert
from wideseek_atlas.habits import Mixture
from wideseek_atlas.seed.drills import Drills
from wideseek_atlas.seed.render import Renderer, Tokens
from wideseek_atlas.tasks import draw_tasks
from wideseek_atlas.world import Split

_WORLDS_A_POOL = 12
_TASKS_A_WORLD = 8
_DRILL_LENGTH = 48  # tokens of a drill, about: sets how many are drawn for a batch
_SINGLE_SHARE = 0.12
_LIST_SHARE = 0.6
_ENTITY_AGENTS = 2  # of an episode's many like subagents, how many are kept
_BUCKET = 64

Batch = tuple[Tensor, Tensor]
"""Ids [rows, time] and weights [rows, time]: 1 where the model is to produce the token."""


def collate(rows: Sequence[Tokens]) -> Batch:
    """Pad rows to one length, a multiple of 32."""
    time = -(-max(len(row.ids) for row in rows) // 32) * 32
    ids, weights = torch.zeros(len(rows), time, dtype=torch.long), torch.zeros(len(rows), time)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        weights[number, : len(row.ids)] = torch.tensor(row.trained, dtype=torch.float)
    return ids, weights


class Batches:
    """Draws batches of about `tokens` tokens, padding included."""

    def __init__(self, renderer: Renderer, seed: int, first_world: int = 0) -> None:
        """`first_world` is the first of the pretraining worlds to use."""
        self._renderer = renderer
        self._rng = random.Random(seed)
        self._drills = Drills(renderer, self._rng)
        self._pack = Pack.load("seed", "en")
        self._next_world = first_world
        self._ready: list[Batch] = []
        self._ready_for: tuple[Mixture, int] | None = None

    def drill(self, tokens: int, *, lists_only: bool) -> Batch:
        """Copy drills, the shorter or the longer half of a draw, so that little is padding."""
        count = 2 * tokens // _DRILL_LENGTH
        drawn = sorted((self._drills.draw(lists_only=lists_only) for _ in range(count)), key=lambda d: len(d.ids))
        rows = drawn[count // 2 :] if self._rng.random() < 0.5 else drawn[: count // 2]
        while len(rows) * len(rows[-1].ids) > tokens * 1.3:
            rows.pop()
        return collate(rows)

    def episodes(self, tokens: int, mixture: Mixture) -> Batch:
        """Transcripts of episodes with habits from `mixture`."""
        if not self._ready or self._ready_for != (mixture, tokens):
            self._ready = self._pool(tokens, mixture)
            self._ready_for = (mixture, tokens)
        return self._ready.pop()

    def _pool(self, tokens: int, mixture: Mixture) -> list[Batch]:
        rows = [row for _ in range(_WORLDS_A_POOL) for row in self._world(mixture)]
        self._rng.shuffle(rows)
        rows.sort(key=lambda row: len(row.ids) // _BUCKET)
        batches: list[list[Tokens]] = [[]]
        for row in rows:
            longest = max(len(r.ids) for r in [*batches[-1], row])
            if batches[-1] and (len(batches[-1]) + 1) * longest > tokens:
                batches.append([])
            batches[-1].append(row)
        self._rng.shuffle(batches)
        return [collate(batch) for batch in batches]

    def _world(self, mixture: Mixture) -> Iterator[Tokens]:
        world, tasks = draw_tasks(Split.PRETRAIN, self._next_world, _TASKS_A_WORLD)
        self._next_world += 1
        expert = Expert(world, self._pack, self._rng, mixture)
        alone = SingleExpert(world, self._pack, self._rng, mixture)
        for task in tasks:
            if len(task.rows) <= MAX_MEMBERS and self._rng.random() < _SINGLE_SHARE:
                yield self._renderer.conversation(alone.demonstrate(task).transcripts[0].messages)
            *agents, lead = expert.demonstrate(task).transcripts
            lists = [a for a in agents if a.messages[1].content.startswith("Find the ")]
            others = [a for a in agents if not a.messages[1].content.startswith("Find the ")]
            kept = self._rng.sample(others, min(_ENTITY_AGENTS, len(others)))
            kept += [a for a in lists if self._rng.random() < _LIST_SHARE]
            for transcript in (lead, *kept):
                yield self._renderer.conversation(transcript.messages)
