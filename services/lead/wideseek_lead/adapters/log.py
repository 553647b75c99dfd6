"""Reads episode logs from JetStream.

Invariants: reading leaves nothing behind on the server (no consumer is made); an event of a newer schema is passed
over, counted and logged once a reading.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nats.js.errors import NotFoundError
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek_contract.episodes import STREAM, NewerSchemaError, decode, subject
from wideseek_kit.bus import Bus, heed_cancellation

_SHORTEST, _LONGEST = 0.01, 1.0  # seconds between looks at a log from which nothing new came
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """A stored event and its place in the stream. `event` is None when its schema is newer than this reader."""

    place: int
    event: events.TrajectoryEvent | None


class LogReader:
    """The logs of all episodes."""

    def __init__(self, bus: Bus) -> None:
        """Read over `bus`."""
        self._bus = bus
        self.newer = 0
        """Events passed over because their schema is newer."""

    async def after(self, episode_id: str, place: int) -> Stored | None:
        """The first event of an episode behind `place` in the stream (0: from the start), if there is one."""
        try:
            raw = await self._bus.jetstream.get_msg(STREAM, seq=place + 1, subject=subject(episode_id), next=True)
        except NotFoundError:
            heed_cancellation()
            return None
        return await self._stored(raw)

    async def last(self, episode_id: str) -> Stored | None:
        """The last event of an episode, if there is one."""
        try:
            raw = await self._bus.jetstream.get_msg(STREAM, subject=subject(episode_id))
        except NotFoundError:
            heed_cancellation()
            return None
        return await self._stored(raw)

    async def all(self, episode_id: str) -> AsyncIterator[Stored]:
        """What is stored of an episode now."""
        place = 0
        while (stored := await self.after(episode_id, place)) is not None:
            place = stored.place
            yield stored

    @asynccontextmanager
    async def bell(self, episode_id: str) -> AsyncIterator["Bell"]:
        """Something to wait on for new events."""
        bell = Bell()

        async def ring(_: Any) -> None:
            bell.ring()

        subscription = await self._bus.client.subscribe(subject(episode_id), cb=ring)
        try:
            yield bell
        finally:
            await subscription.unsubscribe()

    async def _stored(self, raw: Any) -> Stored:
        payload = await self._bus.payload(raw)
        heed_cancellation()
        try:
            return Stored(raw.seq, decode(payload or b""))
        except NewerSchemaError as error:
            self.newer += 1
            _log.warning("event passed over (%d so far): %s", self.newer, error)
            return Stored(raw.seq, None)


class Bell:
    """Rings when an event is on its way to the log; a ring may be missed, so waits are short and grow."""

    def __init__(self) -> None:
        """Silent."""
        self._rung = asyncio.Event()
        self._pause = _SHORTEST

    def ring(self) -> None:
        """Something came."""
        self._pause = _SHORTEST
        self._rung.set()

    async def wait(self) -> None:
        """Return when it is time to look again."""
        try:
            async with asyncio.timeout(self._pause):
                await self._rung.wait()
        except TimeoutError:
            self._pause = min(2 * self._pause, _LONGEST)
        self._rung.clear()
