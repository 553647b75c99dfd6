"""The weight swap: verify, pause, load, label, resume.

Invariants: nothing is paused before the files are verified; the label always names the weights in the engine; whatever
fails after the pause, the last good weights are loaded back before the engine goes on; the engine is resumed on every
way out, unless a caller holds it paused; one swap at a time; a caller that goes away does not interrupt one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wideseek_inference.core.layout import Layout, WeightsRejectedError, check_layout


class SwapRunningError(Exception):
    """Another swap is running."""


class WeightsUnreachableError(Exception):
    """The files of a version could not be fetched; trying again may help."""


class SwapFailedError(Exception):
    """The engine could not load verified weights. The message says which weights it has now."""


@dataclass(frozen=True)
class Wanted:
    """A version to serve. An empty `uri` means the weights of the start."""

    version: int
    uri: str
    manifest_sha256: str = ""


@dataclass(frozen=True)
class Fetched:
    """A version's files, verified, in a local directory."""

    version: int
    directory: Path
    layout: Layout


class Engine(Protocol):
    """The running engine, as far as a swap touches it."""

    async def pause(self) -> None:
        """Stop between two steps; requests in flight are kept."""

    async def resume(self) -> None:
        """Go on."""

    async def load(self, directory: Path) -> None:
        """Replace the weights. On a failure the engine holds no usable weights until a load succeeds."""

    async def label(self, version: int) -> None:
        """Name the weights that make tokens from now on."""


class Store(Protocol):
    """Where versions come from. Both methods block: the swap calls them in a thread."""

    def fetch(self, wanted: Wanted) -> Fetched:
        """Copy and verify. Raises WeightsRejectedError for the version's own fault, anything else for ours."""
        ...

    def discard(self, directory: Path) -> None:
        """Delete a version that is no longer served. The directory of the start is left alone."""
        ...


@dataclass(frozen=True)
class SwapState:
    """What a replica serves. Durations in seconds, newest last."""

    served_version: int
    announced_version: int
    paused: bool
    swaps: int
    failed_swaps: int
    last_error: str
    pauses: tuple[float, ...]


class Swapper:
    """Owns which weights are in the engine."""

    def __init__(self, engine: Engine, store: Store, start: Fetched, *, step_limit: float = 120.0) -> None:
        """Begin with the weights of `start` in the engine; each step of a swap may take `step_limit` seconds."""
        self._engine = engine
        self._store = store
        self._start = start
        self._good = start
        self._served = Wanted(start.version, "")
        self._limit = step_limit
        self._lock = asyncio.Lock()
        self._announced = start.version
        self._held = False
        self._paused = False
        self._swaps = 0
        self._failed = 0
        self._last_error = ""
        self._pauses: deque[float] = deque(maxlen=256)
        self._running: asyncio.Task[None] | None = None

    @property
    def state(self) -> SwapState:
        """What is served now."""
        return SwapState(
            served_version=self._good.version,
            announced_version=self._announced,
            paused=self._paused,
            swaps=self._swaps,
            failed_swaps=self._failed,
            last_error=self._last_error,
            pauses=tuple(self._pauses),
        )

    def serves(self, wanted: Wanted) -> bool:
        """Whether these very files are in the engine; a number alone may have been given twice."""
        return self._served == wanted

    async def update(self, wanted: Wanted) -> None:
        """Serve another version. When the caller is cancelled, the swap goes on to its end.

        Raises:
            SwapRunningError: another one is running.
            WeightsRejectedError: the version cannot be served; the last good one is.
            WeightsUnreachableError: its files could not be fetched.
            SwapFailedError: the engine could not load it.
        """
        if self._running is not None and not self._running.done():
            raise SwapRunningError(f"version {wanted.version} has to wait: version {self._announced} is being loaded")
        self._announced = wanted.version
        self._running = asyncio.create_task(self._update(wanted))
        self._running.add_done_callback(lambda task: task.cancelled() or task.exception())  # heard, if nobody waits
        await asyncio.shield(self._running)

    async def pause(self) -> None:
        """Hold the engine until `resume`; swaps in between leave it paused."""
        async with self._lock:
            self._held = True
            await self._pause()

    async def resume(self) -> None:
        """Let the engine go on."""
        async with self._lock:
            self._held = False
            await self._resume()

    async def close(self) -> None:
        """Wait for a running swap to end."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _update(self, wanted: Wanted) -> None:
        try:
            fetched = await self._verified(wanted)
            async with self._lock:
                await self._swap(fetched)
        except Exception as error:
            self._failed += 1
            self._last_error = f"version {wanted.version}: {error}"
            raise
        self._served = wanted
        self._swaps += 1
        self._last_error = ""

    async def _verified(self, wanted: Wanted) -> Fetched:
        if not wanted.uri:
            return Fetched(wanted.version, self._start.directory, self._start.layout)
        try:
            fetched = await asyncio.to_thread(self._store.fetch, wanted)
        except WeightsRejectedError:
            raise
        except Exception as error:
            raise WeightsUnreachableError(f"{wanted.uri} could not be fetched: {error!r}") from error
        try:
            if fetched.version != wanted.version:
                raise WeightsRejectedError(f"{wanted.uri} holds version {fetched.version}, not {wanted.version}")
            check_layout(self._start.layout, fetched.layout)
        except WeightsRejectedError:
            await asyncio.to_thread(self._store.discard, fetched.directory)
            raise
        return fetched

    async def _swap(self, fetched: Fetched) -> None:
        before = self._good
        started = time.perf_counter()
        try:
            await self._pause()
            try:
                await self._load(fetched)
            except Exception as error:
                await self._restore(error)
        finally:
            if not self._held:
                await self._resume()
                self._pauses.append(time.perf_counter() - started)
            unused = before if self._good is fetched else fetched
            if unused.directory != self._good.directory:
                await asyncio.to_thread(self._store.discard, unused.directory)

    async def _load(self, fetched: Fetched) -> None:
        await self._step("load", self._engine.load(fetched.directory))
        await self._step("label", self._engine.label(fetched.version))
        self._good = fetched

    async def _restore(self, cause: Exception) -> None:
        try:
            await self._load(self._good)
        except Exception as error:
            raise SwapFailedError(f"{cause}; loading version {self._good.version} back failed too: {error}") from cause
        raise SwapFailedError(f"{cause}; version {self._good.version} serves on") from cause

    async def _pause(self) -> None:
        self._paused = True
        await self._step("pause", self._engine.pause())

    async def _resume(self) -> None:
        await self._step("resume", self._engine.resume())
        self._paused = False

    async def _step(self, name: str, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._limit):
                await work
        except TimeoutError as error:
            raise SwapFailedError(f"{name} did not end within {self._limit:g} s") from error
        except Exception as error:
            raise SwapFailedError(f"{name} failed: {error}") from error
