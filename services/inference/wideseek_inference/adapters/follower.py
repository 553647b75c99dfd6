"""Follows the announced policy version.

Invariants: only the newest announcement is loaded, however many came meanwhile; a NATS that is away changes nothing of
what is served. The readiness condition `policy` holds from the first time that the announced version is served (so a
recovered replica never joins with old weights) and is lost when this replica cannot load one (fetching or loading
failed: tried again). A version that is rejected is its own fault and the same everywhere: replicas stay ready with the
last good one, and the weight state says why.
"""

import asyncio
import contextlib
import logging

import nats.errors
from nats.js.errors import KeyNotFoundError
from wideseek_contract.policies import BUCKET, CURRENT, decode_announcement, ensure_bucket
from wideseek_kit.bus import AWAY, Bus, heed_cancellation
from wideseek_kit.errors import Unavailable
from wideseek_kit.serve import Readiness

from wideseek_inference.core.layout import WeightsRejectedError
from wideseek_inference.core.swap import SwapFailedError, Swapper, SwapRunningError, Wanted, WeightsUnreachableError

_CONDITION = "policy"
_RECHECK = 2.0
_log = logging.getLogger(__name__)


class Follower:
    """Loads what the bucket `policy` names."""

    def __init__(self, bus: Bus, swapper: Swapper, readiness: Readiness, *, backoff: float = 1.0) -> None:
        """Follow over `bus`; a failed load is tried again after `backoff` seconds, doubling up to 30."""
        self._bus = bus
        self._swapper = swapper
        self._readiness = readiness
        self._backoff = backoff
        self._wanted: Wanted | None = None
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._readiness.set(_CONDITION, "the announced policy version is not known yet")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._load())

    async def _listen(self) -> None:
        while True:
            heed_cancellation()
            try:
                await self._bus.connected()
                await self._watch()
            except Unavailable as error:
                if self._wanted is None:
                    await self._readiness.set(_CONDITION, error.message)
            except AWAY as error:
                _log.warning("policy announcements: %s", str(error) or type(error).__name__)
                await asyncio.sleep(0.5)

    async def _watch(self) -> None:
        """Hear of announcements until the connection breaks; what a broken watch misses is read every some seconds."""
        await ensure_bucket(self._bus)
        bucket = await self._bus.bucket(BUCKET)
        watch = await bucket.watch(CURRENT)
        try:
            while True:
                heed_cancellation()
                try:
                    entry = await watch.updates(timeout=_RECHECK)  # type: ignore[no-untyped-call]
                except nats.errors.TimeoutError:
                    await self._bus.connected()
                    entry = None
                if entry is None:  # the end of what was there at first, or nothing for a while
                    with contextlib.suppress(KeyNotFoundError):
                        entry = await bucket.get(CURRENT)
                self._hear(entry.value if entry is not None else None)
        finally:
            with contextlib.suppress(*AWAY):  # the server forgets a watch that is gone
                await watch.stop()  # type: ignore[no-untyped-call]

    def _hear(self, value: bytes | None) -> None:
        wanted = Wanted(self._swapper.state.served_version, "")
        if value:
            try:
                announcement = decode_announcement(value)
            except ValueError as error:
                _log.error("an announcement is left alone: %s", error)
                return
            wanted = Wanted(announcement.version, announcement.uri, announcement.manifest_sha256)
        elif self._wanted is not None:
            return
        if wanted != self._wanted:
            self._wanted = wanted
            self._news.set()

    async def _load(self) -> None:
        delay = self._backoff
        while True:
            await self._news.wait()
            self._news.clear()
            wanted = self._wanted
            if wanted is None:
                continue
            again = await self._serve(wanted)
            if not again:
                delay = self._backoff
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._news.wait()
            self._news.set()
            delay = min(2 * delay, 30.0)

    async def _serve(self, wanted: Wanted) -> bool:
        """Load a version unless it is there; returns whether to try again."""
        if self._swapper.serves(wanted):
            await self._readiness.set(_CONDITION)
            return False
        try:
            await self._swapper.update(wanted)
        except WeightsRejectedError as error:
            _log.error("policy version %d is rejected: %s", wanted.version, error)
            if _CONDITION in self._readiness.faults:
                await self._readiness.set(_CONDITION, self._behind(wanted, error))
            return False
        except (WeightsUnreachableError, SwapFailedError, SwapRunningError) as error:
            await self._readiness.set(_CONDITION, self._behind(wanted, error))
            return True
        _log.info("policy version %d is served", wanted.version)
        await self._readiness.set(_CONDITION)
        return False

    def _behind(self, wanted: Wanted, error: Exception) -> str:
        served = self._swapper.state.served_version
        return f"version {served} is served, version {wanted.version} is announced: {error}"
