"""Keeps the episodes of this replica: starts them, renews their leases, ends them.

Invariants: every episode at work has one task, owned here; an episode's end is told to the log first and to the
resource then, exactly once; when `closing` ends, no episode of this replica is at work, and each has a terminal event
unless NATS is out of reach (then its lease expires and another lead closes it).
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from opentelemetry import trace
from wideseek_kit.bus import Bus
from wideseek_kit.errors import ServiceError, Unavailable

from wideseek_lead.adapters.journal import Backlog, EpisodeJournal, FencedError, utc_now
from wideseek_lead.adapters.store import EpisodeStore
from wideseek_lead.core import verdict
from wideseek_lead.core.episode import Episode, EpisodeSpec, Failure, StopReason
from wideseek_lead.core.ports import SubtaskFailedError
from wideseek_lead.core.run import INTERNAL, Outcome
from wideseek_lead.errors import LeadDraining, TooManyEpisodes
from wideseek_lead.ids import new_episode_id
from wideseek_lead.launcher import Launcher, Plan

_CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("wideseek.lead")


@dataclass
class _Running:
    """An episode at work. `why` is set before `work` is cancelled."""

    episode: Episode
    journal: EpisodeJournal
    work: asyncio.Task[Outcome] | None = None
    why: StopReason | None = None
    saved: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, why: StopReason) -> None:
        """End the work; the first reason counts."""
        self.why = self.why or why
        if self.work is not None:
            self.work.cancel()

    def now(self) -> Episode:
        """The episode as it is at this moment."""
        return replace(self.episode, usage=self.journal.tally.usage, last_sequence=self.journal.last_sequence)


class Keeper:
    """The episodes at work in this replica."""

    def __init__(
        self,
        bus: Bus,
        store: EpisodeStore,
        launcher: Launcher,
        *,
        max_episodes: int,
        lease_ttl: float,
        snapshot_interval: float,
        backlog_bytes: int,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Nothing at work. `clock` gives the time of day."""
        self.owner = uuid.uuid4().hex
        self._bus = bus
        self._store = store
        self._launcher = launcher
        self._max_episodes = max_episodes
        self._lease_ttl = lease_ttl
        self._snapshot_interval = snapshot_interval
        self._backlog = Backlog(backlog_bytes)
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = 0
        self._draining = False
        self._grace_over = False
        self._given_up = asyncio.Event()

    def __len__(self) -> int:
        """Episodes at work."""
        return len(self._running)

    async def create(self, spec: EpisodeSpec, request_id: str = "", fingerprint: str = "") -> Episode:
        """Start an episode, or give the one that `request_id` has started before.

        Raises:
            ServiceError: see the contract's CreateEpisode.
        """
        await self._bus.connected()
        known = await self._store.claimed(request_id, fingerprint) if request_id else None
        if known is not None and (found := await self._store.find(known)) is not None:
            return found
        self._take_slot()
        try:
            plan = await self._launcher.check(spec)
            created = self._clock()
            episode_id = known or new_episode_id(created)
            if request_id and known is None:
                episode_id = await self._store.claim(request_id, fingerprint, episode_id)
            episode = Episode(episode_id, spec, created)
            if not await self._store.create(episode, self.owner):
                return await self._store.get(episode_id)  # another replica was faster with the same request
            self._start(episode, plan)
            return episode
        finally:
            self._starting -= 1

    def cancel(self, episode_id: str) -> bool:
        """Begin to cancel an episode of this replica; false when it is not at work here."""
        running = self._running.get(episode_id)
        if running is None:
            return False
        running.stop(StopReason.CANCELLED)
        return True

    def holds(self, episode_id: str) -> bool:
        """Whether an episode is at work here."""
        return episode_id in self._running

    def drain(self, grace: float) -> None:
        """Take no new episodes; end those at work after `grace` seconds."""
        if not self._draining:
            self._draining = True
            self._own(self._stop_after(grace))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the context lasts episodes can run; at its end those at work are ended, after the drain's grace."""
        loops = [asyncio.create_task(self._renew()), asyncio.create_task(self._snapshots())]
        try:
            yield
        finally:
            self.drain(0.0)
            while self._tasks:
                await asyncio.wait(self._tasks)
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    def _take_slot(self) -> None:
        if self._draining:
            raise LeadDraining
        at_work = len(self._running) + self._starting
        if at_work >= self._max_episodes:
            raise TooManyEpisodes(at_work, self._max_episodes)
        self._starting += 1

    def _start(self, episode: Episode, plan: Plan) -> None:
        running = _Running(episode, EpisodeJournal(self._bus, episode, self._backlog))
        self._running[episode.episode_id] = running
        self._own(self._keep(running, plan))
        if self._grace_over:
            running.stop(StopReason.LEAD_LOST)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, running: _Running, plan: Plan) -> None:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "lead" if running.episode.spec.mode == "multi" else "single",
            "gen_ai.conversation.id": running.episode.episode_id,
        }
        sender = asyncio.create_task(running.journal.run())
        sender.add_done_callback(lambda _: running.stop(StopReason.LEAD_LOST))
        try:
            with _tracer.start_as_current_span("invoke_agent", attributes=attributes):
                ended = await self._work(running, plan)
                await self._end(running, ended, sender)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            del self._running[running.episode.episode_id]
            running.done.set()

    async def _work(self, running: _Running, plan: Plan) -> Episode:
        """Run the episode to its end."""
        episode, tally = running.episode, running.journal.tally
        running.journal.episode_started()
        running.work = asyncio.create_task(self._launcher.run(episode, plan, running.journal))
        if running.why is not None:
            running.work.cancel()  # the stop came before the start
        await asyncio.wait([running.work])
        now = self._clock()
        if running.work.cancelled():
            return self._stopped(running, now)
        error = running.work.exception()
        if error is None:
            return verdict.answered(episode, running.work.result(), tally, now)
        return verdict.failed(episode, _failure(episode, error), tally, now)

    def _stopped(self, running: _Running, now: datetime) -> Episode:
        if running.why is StopReason.CANCELLED:
            return verdict.cancelled(running.episode, running.journal.tally, now)
        failure = Failure(verdict.LEAD_STOPPED, "the lead that ran the episode was shut down")
        return verdict.failed(running.episode, failure, running.journal.tally, now, StopReason.LEAD_LOST)

    async def _end(self, running: _Running, ended: Episode, sender: asyncio.Task[None]) -> None:
        """Tell the log, then the resource. Waits for NATS as long as it takes; when the lead stops, a few seconds."""
        running.journal.episode_finished(ended)
        telling = asyncio.create_task(self._tell(running, ended, sender))
        given_up = asyncio.create_task(self._given_up.wait())
        await asyncio.wait([telling, given_up], return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            _log.error("%s: its end is not stored, NATS is out of reach; its lease will expire", ended.episode_id)
        for task in (telling, given_up):
            task.cancel()
        await asyncio.gather(telling, given_up, return_exceptions=True)
        if not telling.cancelled() and (error := telling.exception()) is not None:
            raise error

    async def _tell(self, running: _Running, ended: Episode, sender: asyncio.Task[None]) -> None:
        flushed = asyncio.create_task(running.journal.flush())
        try:
            await asyncio.wait([flushed, sender], return_when=asyncio.FIRST_COMPLETED)
            if not flushed.done():
                _report_fence(ended.episode_id, sender)
                return
        finally:
            flushed.cancel()
        await self._settle(replace(ended, last_sequence=running.journal.last_sequence))

    async def _settle(self, ended: Episode) -> None:
        while True:
            try:
                await self._store.save(ended)
                await self._store.release(ended.episode_id)
                return
            except Unavailable as error:
                _log.warning("%s: its end waits for NATS: %s", ended.episode_id, error)
                await asyncio.sleep(0.3)

    async def _stop_after(self, grace: float) -> None:
        await self._all_done(grace)
        self._grace_over = True
        for running in list(self._running.values()):
            running.stop(StopReason.LEAD_LOST)
        await self._all_done(_CLOSE_SECONDS)
        self._given_up.set()

    async def _all_done(self, seconds: float) -> None:
        ends = [asyncio.create_task(running.done.wait()) for running in self._running.values()]
        if ends:
            await asyncio.wait(ends, timeout=seconds)
        for end in ends:
            end.cancel()

    async def _renew(self) -> None:
        """Renew all leases three times in their life; after a fault soon again."""
        while True:
            pause = self._lease_ttl / 3
            try:
                for episode_id in list(self._running):
                    await self._store.renew(episode_id, self.owner)
            except Unavailable as error:
                _log.warning("leases are not renewed: %s", error)
                pause = min(0.5, pause)
            await asyncio.sleep(pause)

    async def _snapshots(self) -> None:
        """Store how far the episodes are, each only when it went on."""
        while True:
            await asyncio.sleep(self._snapshot_interval)
            try:
                for running in list(self._running.values()):
                    if running.saved != running.journal.last_sequence and running.why is None:
                        running.saved = running.journal.last_sequence
                        await self._store.save(running.now())
            except Unavailable as error:
                _log.warning("snapshots are not stored: %s", error)


def _failure(episode: Episode, error: BaseException) -> Failure:
    if isinstance(error, ServiceError):
        return Failure(error.reason, error.message, error.facts)
    if isinstance(error, SubtaskFailedError):
        return Failure(error.reason, error.message)
    _log.error("episode %s failed", episode.episode_id, exc_info=error)
    return Failure(INTERNAL, "internal error; the lead's log has the details")


def _report_fence(episode_id: str, sender: asyncio.Task[None]) -> None:
    error = None if sender.cancelled() else sender.exception()
    if isinstance(error, FencedError):
        _log.warning("%s: given up, another lead has closed it: %s", episode_id, error)
    else:
        _log.error("%s: its log cannot be written any more", episode_id, exc_info=error)
