"""Asks the lead for episodes: in the order of steps, bounded in number and in how far ahead of the weights they are.

Invariants: never more than `max_episodes_in_flight` at a time; an episode of step n starts only while inference serves
weights of at most `max_staleness` updates before those that step n will change; a busy lead delays, it does not fail.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wideseek_trainer.core.collect import Collector, group_id
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.consume import Consumer
from wideseek_trainer.core.errors import ServingBehindError
from wideseek_trainer.core.ports import Busy, EpisodeRequest, Ports
from wideseek_trainer.core.staleness import may_start
from wideseek_trainer.core.tasks import TaskSet
from wideseek_trainer.core.trajectory import Place

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long to wait, in seconds: for an episode's whole log, for inference to swap, between tries."""

    episode: float = 3600.0
    serving: float = 300.0
    retry: float = 0.5
    retry_most: float = 10.0


class Launcher:
    """Keeps episodes in flight."""

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        tasks: TaskSet,
        ports: Ports,
        limits: Limits,
        versions: Callable[[], Mapping[int, int]],
    ) -> None:
        """`versions` gives policy version to update, published ones only."""
        self._run_id = run_id
        self._config = config
        self._tasks = tasks
        self._ports = ports
        self._limits = limits
        self._versions = versions
        self._places: dict[str, Place] = {}

    async def run(self, first_step: int, collector: Collector, consumer: Consumer) -> None:
        """Ask for every episode from `first_step` on; returns when all have ended."""
        room = asyncio.Semaphore(self._config.max_episodes_in_flight)
        async with asyncio.TaskGroup() as flights:
            for step in range(first_step, self._config.steps + 1):
                await self._serving_near(step)
                tasks = self._tasks.for_step(step, self._config.questions_per_step, self._config.seed)
                for question, task in enumerate(tasks):
                    for index in range(self._config.group_size):
                        place = Place(group_id(self._run_id, step, question), index, self._config.group_size)
                        request = EpisodeRequest(f"{place.group}/{index}", task, place)
                        await room.acquire()
                        flight = flights.create_task(self._fly(request, collector, consumer))
                        flight.add_done_callback(lambda _: room.release())

    async def _fly(self, request: EpisodeRequest, collector: Collector, consumer: Consumer) -> None:
        place, ended = request.place, collector.ended(request.place)
        if ended.is_set():
            return  # it ended before the service was restarted
        episode = await self._create(request)
        self._places[episode] = place
        try:
            async with asyncio.timeout(self._limits.episode):
                await ended.wait()
        except TimeoutError:
            _log.error("episode %s: no whole log within %.0f s; it counts as failed", episode, self._limits.episode)
            await self._cancel(episode)
            consumer.give_up(episode, place)
        self._places.pop(episode)

    async def _create(self, request: EpisodeRequest) -> str:
        delay = self._limits.retry
        while True:
            try:
                return await self._ports.episodes.create(request)
            except Busy as busy:
                _log.warning("%s waits for the lead: %s", request.request_id, busy)
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._limits.retry_most)

    async def _serving_near(self, step: int) -> None:
        deadline = time.monotonic() + self._limits.serving
        told = "nothing yet"
        while True:
            versions = self._versions()
            served: int | None = max(versions.values())
            if self._ports.serving is not None:
                try:
                    version = await self._ports.serving.version()
                    served, told = versions.get(version), f"version {version}"
                except Busy as busy:
                    served, told = None, str(busy)
            if served is not None and may_start(step, served, self._config.max_staleness):
                return
            if may_start(step, max(versions.values()), self._config.max_staleness):
                if time.monotonic() > deadline:  # what it waits for was published long ago
                    wanted = max(versions, key=lambda key: versions[key])
                    raise ServingBehindError(
                        f"inference serves {told}; step {step} waited {self._limits.serving:.0f} s for {wanted}",
                        step=step,
                        wanted=wanted,
                    )
            else:
                deadline = time.monotonic() + self._limits.serving
            await asyncio.sleep(0.1)

    async def cancel_all(self) -> None:
        """Cancel what is in flight, as far as the lead can be reached."""
        for episode in list(self._places):
            await self._cancel(episode)

    async def _cancel(self, episode: str) -> None:
        try:
            await self._ports.episodes.cancel(episode)
        except Busy as busy:
            _log.warning("episode %s could not be cancelled: %s", episode, busy)
