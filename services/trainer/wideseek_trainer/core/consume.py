"""From the stream into the collector, and back: which messages are done with.

Invariants: a message belongs to a step, or it is done with at once; the watermark is the highest sequence below which
every message is done with, so reading on from it after a crash loses nothing and repeats only what was not trained.
"""

import logging
from collections.abc import Sequence

from wideseek_trainer.core.assemble import Assembler
from wideseek_trainer.core.collect import Collector, step_of
from wideseek_trainer.core.ports import Delivery, EventLog
from wideseek_trainer.core.trajectory import Place

_log = logging.getLogger(__name__)


class Consumer:
    """Reads the stream for one run."""

    def __init__(self, events: EventLog, collector: Collector, *, watermark: int, done: int) -> None:
        """Read from `watermark` on for the steps after `done`."""
        self._events = events
        self._collector = collector
        self._assembler = Assembler()
        self._done = done
        self._seen = watermark
        self._pending: dict[int, int] = {}
        self._passed_over = 0
        self._newer = 0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            finished = [delivery.sequence for delivery in await self._events.fetch() if not self._take(delivery)]
            if finished:
                await self._events.acknowledge(finished)

    def _take(self, delivery: Delivery) -> bool:
        """Whether the message must wait for its step."""
        if delivery.sequence in self._pending:
            self._passed_over += 1
            return True
        self._seen = max(self._seen, delivery.sequence)
        if delivery.newer:
            self._newer += 1
        if delivery.place is None:
            return False
        step = step_of(delivery.place.group)
        if step <= self._done:
            self._passed_over += 1
            return False
        self._pending[delivery.sequence] = step
        if delivery.event is None:
            self._unreadable(delivery.episode, delivery.place)
        else:
            episode = self._assembler.add(delivery.event)
            if episode is not None:
                self._collector.add(episode)
        return True

    def _unreadable(self, episode: str, place: Place) -> None:
        _log.warning("episode %s holds an event of a newer schema: its group is not trained on", episode)
        self._assembler.forget(episode)
        self._collector.fill_empty(place, episode, unreadable=True)

    def give_up(self, episode: str, place: Place) -> None:
        """Stop waiting for an episode's log."""
        self._assembler.forget(episode)
        self._collector.fill_empty(place, episode)

    def finish(self, step: int) -> tuple[Sequence[int], int]:
        """Count a step as trained: its messages, and the watermark without them."""
        self._done = step
        finished = [sequence for sequence, owner in self._pending.items() if owner <= step]
        for sequence in finished:
            del self._pending[sequence]
        return finished, (min(self._pending) - 1 if self._pending else self._seen)

    def drain_counts(self) -> tuple[int, int]:
        """Events of a newer schema and events passed over, since the last call."""
        counts = self._newer, self._passed_over + self._assembler.duplicates
        self._newer = self._passed_over = self._assembler.duplicates = 0
        return counts
