"""Episodes by their place in a run, held until their step is trained.

Invariants: a place is filled once; a step is whole when each of its places is filled, by an episode or by the fact that
none will come; what was handed out is not held any more.
"""

import asyncio
from collections.abc import Sequence

from wideseek_trainer.core.batch import Group
from wideseek_trainer.core.tasks import Task
from wideseek_trainer.core.trajectory import Episode, Place, Stop


def group_id(run_id: str, step: int, question: int) -> str:
    """The group of a step's question (from 0)."""
    return f"{run_id}/{step}/{question}"


def step_of(group: str) -> int:
    """The step that a group belongs to."""
    return int(group.rsplit("/", 2)[1])


class Collector:
    """Where whole episodes wait for their step."""

    def __init__(self) -> None:
        """Start empty."""
        self._episodes: dict[tuple[str, int], Episode] = {}
        self._unreadable: set[tuple[str, int]] = set()
        self._ended: dict[tuple[str, int], asyncio.Event] = {}

    def ended(self, place: Place) -> asyncio.Event:
        """Set once the place is filled."""
        return self._ended.setdefault((place.group, place.index), asyncio.Event())

    def add(self, episode: Episode, *, unreadable: bool = False) -> None:
        """Fill the episode's place; a second episode for it is passed over."""
        key = (episode.place.group, episode.place.index)
        if self.ended(episode.place).is_set():
            return
        self._episodes[key] = episode
        if unreadable:
            self._unreadable.add(key)
        self.ended(episode.place).set()

    def fill_empty(self, place: Place, episode: str, *, unreadable: bool = False) -> None:
        """Fill a place for which no whole log will come: it counts as a failed episode without tokens."""
        self.add(Episode(episode, place, Stop.LEAD_LOST, "", {}), unreadable=unreadable)

    async def take_step(self, run_id: str, step: int, tasks: Sequence[Task], size: int) -> list[Group]:
        """Wait until the step is whole and hand it out, in the order of its questions."""
        groups = []
        for question, task in enumerate(tasks):
            places = [Place(group_id(run_id, step, question), index, size) for index in range(size)]
            for place in places:
                await self.ended(place).wait()
            keys = [(place.group, place.index) for place in places]
            unreadable = sum(key in self._unreadable for key in keys)
            groups.append(Group(places[0].group, task, tuple(self._episodes[key] for key in keys), unreadable))
        for group in groups:
            self._forget(group.group_id, size)
        return groups

    def _forget(self, group: str, size: int) -> None:
        for index in range(size):
            self._episodes.pop((group, index))
            self._ended.pop((group, index))
            self._unreadable.discard((group, index))
