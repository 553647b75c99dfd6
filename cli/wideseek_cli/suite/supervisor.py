"""The supervisor: starts the parts, keeps them, stops them.

Invariants: every part is its child and ends with it; a part that dies during the start ends the whole suite, and the
fault names it with the end of its log; afterwards a dead part is started again up to `max_restarts` times; stopping
goes against the direction of use, so that a part can finish its work with those it needs.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wideseek_kit.errors import ServiceError

from wideseek_cli.suite import process
from wideseek_cli.suite.logs import tail, unmet_conditions
from wideseek_cli.suite.process import Part
from wideseek_cli.suite.state import PartPhase, Phase, Process, SuiteState

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Times in seconds: until ready, between probes, until a stop becomes a kill, before the first restart."""

    start: float = 300.0
    probe: float = 0.25
    stop: float = 20.0
    backoff: float = 1.0
    max_restarts: int = 3


class StartFailedError(Exception):
    """The suite did not start; the message names the part, with the end of its log."""


class Supervisor:
    """Runs `parts`, whose names are those in `state`, and tells `on_change` of every change of the state."""

    def __init__(
        self, parts: Sequence[Part], state: SuiteState, on_change: Callable[[SuiteState], None], limits: Limits
    ) -> None:
        """Start nothing yet."""
        self._parts = parts
        self._state = state
        self._on_change = on_change
        self._limits = limits
        self._ready = {part.name: asyncio.Event() for part in parts}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set.

        Raises:
            StartFailedError: a part died or was not ready in time; everything is stopped by then.
        """
        keepers = [asyncio.create_task(self._keep(part), name=part.name) for part in self._parts]
        stopped = asyncio.create_task(stop.wait())
        try:
            await self._start(keepers, stopped)
            if not stop.is_set():
                self._tell(phase=Phase.READY)
            await asyncio.wait([stopped])
        except (StartFailedError, OSError) as error:
            self._tell(phase=Phase.FAILED, fault=str(error))
            raise
        finally:
            self._stopping.set()
            if self._state.phase is not Phase.FAILED:
                self._tell(phase=Phase.STOPPING)
            async with _cancelled(stopped, *keepers):
                await self._stop_all()

    async def _start(self, keepers: Sequence[asyncio.Task[None]], stopped: asyncio.Task[bool]) -> None:
        all_ready = asyncio.create_task(self._all_ready())
        async with _cancelled(all_ready):
            done, _ = await asyncio.wait(
                [all_ready, stopped, *keepers], timeout=self._limits.start, return_when=asyncio.FIRST_COMPLETED
            )
            for keeper in keepers:
                if keeper in done:
                    await keeper  # raises what ended it
            if not done:
                raise StartFailedError(self._late())

    async def _all_ready(self) -> None:
        for event in self._ready.values():
            await event.wait()

    async def _keep(self, part: Part) -> None:
        for name in part.starts_after:
            await self._ready[name].wait()
        state = self._state.part(part.name)
        pause = self._limits.backoff
        while not self._stopping.is_set():
            running = await self._launch(part)
            if self._stopping.is_set():  # the stop came while it was being started
                await process.stop(running, self._limits.stop)
                return
            await self._until_ready(part, running)
            returncode = await running.wait()
            await process.end_family(running, [])
            if self._stopping.is_set():
                return
            fault = self._obituary(part, returncode)
            if self._state.phase is Phase.STARTING:
                self._tell(part, phase=PartPhase.DEAD, fault=f"ended with status {returncode}")
                raise StartFailedError(fault)
            if state.restarts >= self._limits.max_restarts:
                _log.error("%s", fault)
                self._tell(part, phase=PartPhase.DEAD, fault=f"ended with status {returncode}; restarted in vain")
                return
            _log.warning("%s; starts again in %.1f s", fault, pause)
            self._tell(
                part, phase=PartPhase.RESTARTING, restarts=state.restarts + 1, fault=f"ended with status {returncode}"
            )
            await asyncio.sleep(pause)
            pause *= 2

    async def _launch(self, part: Part) -> asyncio.subprocess.Process:
        running = await process.spawn(part, Path(self._state.part(part.name).log))
        self._processes[part.name] = running
        self._tell(part, phase=PartPhase.STARTING, process=Process.of(running.pid))
        return running

    async def _until_ready(self, part: Part, running: asyncio.subprocess.Process) -> None:
        while running.returncode is None:
            with contextlib.suppress(OSError, ServiceError):  # it does not answer yet
                if await part.ready():
                    self._tell(part, phase=PartPhase.READY, fault="")
                    self._ready[part.name].set()
                    return
            await asyncio.sleep(self._limits.probe)

    async def _stop_all(self) -> None:
        stopped = {part.name: asyncio.Event() for part in self._parts}
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                users = [stopped[other.name] for other in self._parts if part.name in other.needs]
                group.create_task(self._stop(part, users, stopped[part.name]))

    async def _stop(self, part: Part, users: Sequence[asyncio.Event], done: asyncio.Event) -> None:
        for user in users:
            await user.wait()
        running = self._processes.get(part.name)
        if running is not None:
            died = self._state.part(part.name).phase is PartPhase.DEAD
            by_itself = await process.stop(running, self._limits.stop)
            fault = "" if by_itself else f"killed after {self._limits.stop:g} s"
            if not died:
                self._tell(part, phase=PartPhase.STOPPED, fault=fault)
        done.set()

    def _late(self) -> str:
        late = [part for part in self._parts if not self._ready[part.name].is_set()]
        texts = [f"{part.name} is not ready after {self._limits.start:g} s{self._end_of_log(part)}" for part in late]
        return "\n".join(texts)

    def _obituary(self, part: Part, returncode: int) -> str:
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
        return f"{part.name} {how}{self._end_of_log(part)}"

    def _end_of_log(self, part: Part) -> str:
        log = Path(self._state.part(part.name).log)
        why = unmet_conditions(log)
        lines = tail(log)
        reasons = f" ({'; '.join(why)})" if why else ""
        if not lines:
            return f"{reasons}; its log {log} is empty"
        return f"{reasons}; the end of {log}:\n" + "\n".join(f"    {line}" for line in lines)

    def _tell(self, part: Part | None = None, **changes: object) -> None:
        target = self._state if part is None else self._state.part(part.name)
        for name, value in changes.items():
            setattr(target, name, value)
        self._on_change(self._state)


@contextlib.asynccontextmanager
async def _cancelled(*tasks: "asyncio.Task[None] | asyncio.Task[bool]") -> AsyncIterator[None]:
    """Cancel `tasks` at the end of the context and wait for them; what they raised has been seen before."""
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
