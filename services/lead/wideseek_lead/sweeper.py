"""Closes the episodes of leads that are gone.

Invariants: only an episode without a lease is closed, and none for one lease's time after NATS was out of reach (the
owners could not renew); of any number of sweepers exactly one event and one end are stored; the log of a closed
episode is gapless.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from wideseek.events.v1 import trajectory_pb2 as events
from wideseek_kit.bus import AWAY, Bus
from wideseek_kit.errors import Unavailable

from wideseek_lead.adapters.journal import Backlog, EpisodeJournal, FencedError, utc_now
from wideseek_lead.adapters.log import LogReader
from wideseek_lead.adapters.store import EpisodeStore
from wideseek_lead.core import verdict
from wideseek_lead.core.episode import Episode, Failure, StopReason
from wideseek_lead.core.run import Outcome
from wideseek_lead.core.tally import Tally
from wideseek_lead.wire import STOPS_BACK
from wideseek_lead.wire_events import fold

_STORE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Sweeper:
    """Looks for orphaned episodes, three times in a lease's life."""

    def __init__(
        self,
        bus: Bus,
        store: EpisodeStore,
        *,
        lease_ttl: float,
        holds: Callable[[str], bool],
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holds` tells which episodes are at work in this replica: those are never closed here."""
        self._bus = bus
        self._store = store
        self._reader = LogReader(bus)
        self._lease_ttl = lease_ttl
        self._holds = holds
        self._now = now
        self._clock = clock
        self._quiet_until: float | None = None
        self._suspects: set[str] = set()

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            try:
                await self._bus.connected()
                await self.sweep()
            except (Unavailable, *AWAY) as error:
                _log.warning("no sweep: %s", str(error) or type(error).__name__)
                self._quiet_until = None
            await asyncio.sleep(self._lease_ttl / 3)

    async def sweep(self) -> list[str]:
        """Close the episodes that were orphans at the last sweep and still are; returns them."""
        if self._quiet_until is None:
            self._quiet_until = self._clock() + self._lease_ttl
        orphans = set(await self._store.orphans())
        if self._clock() < self._quiet_until:
            return []
        closed = []
        for episode_id in sorted(orphans & self._suspects):
            if not self._holds(episode_id) and not await self._store.leased(episode_id):
                await self.close(episode_id)
                closed.append(episode_id)
        self._suspects = orphans
        return closed

    async def close(self, episode_id: str) -> None:
        """Give an orphaned episode its end."""
        episode = await self._store.find(episode_id)
        if episode is not None and not episode.ended:
            ended = await self._close_log(episode)
            if await self._store.save(ended):
                _log.warning("%s: closed, the lead that ran it is gone", episode_id)
        await self._store.release(episode_id)

    async def _close_log(self, episode: Episode) -> Episode:
        """Append what is missing of the log; the episode as the log ends it."""
        tally, place, sequence = Tally(), 0, 0
        async for stored in self._reader.all(episode.episode_id):
            place = stored.place
            sequence += 1
            if stored.event is None:
                continue
            sequence = stored.event.sequence
            fold(tally, stored.event)
            if stored.event.WhichOneof("event") == "episode_finished":
                return self._as_logged(episode, stored.event, tally)
        failure = Failure(
            verdict.LEAD_LOST, "the lead that ran the episode is gone", {"episode_id": episode.episode_id}
        )
        ended = verdict.failed(episode, failure, tally, self._now(), StopReason.LEAD_LOST)
        journal = EpisodeJournal(
            self._bus, episode, Backlog(1), place=place, sequence=sequence, tally=tally, now=self._now
        )
        if sequence == 0:
            journal.episode_started()
        journal.episode_finished(ended)
        try:
            await _stored(journal)
        except FencedError:
            return await self._close_log(episode)  # closed by another in the meantime: now its log says how
        return replace(ended, last_sequence=journal.last_sequence)

    @staticmethod
    def _as_logged(episode: Episode, event: events.TrajectoryEvent, tally: Tally) -> Episode:
        """The end of an episode whose lead told its log, but not the resource any more."""
        finished, now = event.episode_finished, event.time.ToDatetime(UTC)
        stop = STOPS_BACK.get(finished.stop_reason, StopReason.FAILED)
        if stop is StopReason.CANCELLED:
            ended = verdict.cancelled(episode, tally, now)
        elif stop in (StopReason.FAILED, StopReason.LEAD_LOST):
            ended = verdict.failed(episode, Failure(stop.name, finished.error_message), tally, now, stop)
        else:
            ended = verdict.answered(episode, Outcome(finished.answer, stop), tally, now)
        return replace(ended, last_sequence=event.sequence)


async def _stored(journal: EpisodeJournal) -> None:
    """Wait until what was recorded is stored, or the log turns out to be closed."""
    sender, flushed = asyncio.create_task(journal.run()), asyncio.create_task(journal.flush())
    try:
        await asyncio.wait([sender, flushed], timeout=_STORE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if sender.done():
            sender.result()
        if not flushed.done():
            raise TimeoutError(f"not stored within {_STORE_SECONDS:g} s")
    finally:
        for task in (sender, flushed):
            task.cancel()
        await asyncio.gather(sender, flushed, return_exceptions=True)
