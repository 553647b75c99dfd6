"""A training run: waits for a step's groups, learns, commits, publishes; meanwhile the next step's episodes run.

Invariants (the order of a step): learn -> reserve a version -> checkpoint -> policy directory -> announcement ->
journal -> acknowledgement -> mark. The checkpoint is the commit: whoever dies before it trains the step again from the
same events to the same weights; whoever dies after it only repeats what follows, to the same effect. So no group is
trained twice and none is lost.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from wideseek_trainer.core.batch import Counters, make_batch
from wideseek_trainer.core.checkpoint import Checkpoints, Progress
from wideseek_trainer.core.collect import Collector
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.consume import Consumer
from wideseek_trainer.core.errors import TaskSetChangedError
from wideseek_trainer.core.launch import Launcher, Limits
from wideseek_trainer.core.learner import WEIGHTS_FILE
from wideseek_trainer.core.ports import Ports
from wideseek_trainer.core.tasks import TaskSet


class Driver:
    """One run. `base` holds the files of its first policy."""

    def __init__(
        self,
        run_id: str,
        config: RunConfig,
        tasks: TaskSet,
        ports: Ports,
        checkpoints: Checkpoints,
        base: Path,
        limits: Limits | None = None,
    ) -> None:
        """Prepare; `run` does the work."""
        self._run_id = run_id
        self._config = config
        self._tasks = tasks
        self._ports = ports
        self._checkpoints = checkpoints
        self._base = base
        self._published: dict[int, int] = {}
        self._launcher = Launcher(run_id, config, tasks, ports, limits or Limits(), lambda: self._published)
        self._stop = asyncio.Event()

    def cancel(self) -> None:
        """Stop after the update under way."""
        self._stop.set()

    async def run(self) -> bool:
        """Train to the end; False when it was cancelled before. `begin` comes first, once in the run's life."""
        progress = self._checkpoints.latest()
        if progress is None:
            raise AssertionError("a run begins with `begin`")
        if progress.task_set_sha256 != self._tasks.sha256:
            raise TaskSetChangedError(
                f"{self._config.task_set_uri}: SHA-256 is {self._tasks.sha256}, the run began with "
                f"{progress.task_set_sha256}",
                file=self._config.task_set_uri,
            )
        collector = Collector()
        consumer = Consumer(self._ports.events, collector, watermark=progress.watermark, done=progress.step)
        await self._ports.events.open(progress.watermark)
        if progress.step and not self._checkpoints.published(progress.step):
            await self._publish(progress, [])
        self._published = dict(progress.versions)
        finished = await self._with_helpers(
            self._train(progress, collector, consumer),
            consumer.run,
            lambda: self._launcher.run(progress.step + 1, collector, consumer),
        )
        await self._ports.events.close()
        return finished

    async def begin(self, first_version: int) -> None:
        """Commit the start: everything on the stream so far is of no interest. Without effect once it has begun."""
        if self._checkpoints.latest() is None:
            watermark = await self._ports.events.last_sequence()
            start = Progress(0, watermark, first_version, self._tasks.sha256, versions={first_version: 0})
            await self._checkpoints.commit(start, _nothing)

    async def _with_helpers(self, work: Any, *helpers: Callable[[], Awaitable[None]]) -> bool:
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(_run(helper)) for helper in helpers]
                finished: bool = await group.create_task(work)
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as errors:
            await self._launcher.cancel_all()
            raise _first(errors) from errors
        if not finished:
            await self._launcher.cancel_all()
        return finished

    async def _train(self, progress: Progress, collector: Collector, consumer: Consumer) -> bool:
        resume = self._checkpoints.directory(progress.step) if progress.step else None
        await self._ports.learners.start(self._base, resume)
        while progress.step < self._config.steps:
            step, started = progress.step + 1, time.monotonic()
            tasks = self._tasks.for_step(step, self._config.questions_per_step, self._config.seed)
            groups = await self._unless_stopped(collector.take_step(self._run_id, step, tasks, self._config.group_size))
            if groups is None:
                return False
            progress = await self._step(progress, groups, consumer, time.monotonic() - started)
            if self._stop.is_set() and step < self._config.steps:
                return False
        return True

    async def _step(self, before: Progress, groups: Sequence[Any], consumer: Consumer, waited: float) -> Progress:
        step, started = before.step + 1, time.monotonic()
        seed = f"{self._config.seed}/{step}"
        batch = await asyncio.to_thread(make_batch, groups, self._config, before.versions, before.step, seed)
        with self._ports.tracer.update(step, batch.traceparents):
            figures = await self._ports.learners.update(batch.sequences)
            learned = time.monotonic()
            version = await self._ports.policies.reserve(self._run_id, step)
            messages, watermark = consumer.finish(step)
            newer, duplicate = consumer.drain_counts()
            counts = Counters(events_of_newer_schema=newer, events_duplicate=duplicate)
            progress = Progress(
                step=step,
                watermark=watermark,
                version=version,
                task_set_sha256=before.task_set_sha256,
                consumed=[*before.consumed, *(group.group_id for group in groups)],
                versions={**before.versions, version: step},
                counters=before.counters.plus(batch.counters).plus(counts),
                metrics={**batch.metrics, **figures},
                seconds={"wait": waited, "learn": learned - started},
                time=time.time(),
            )
            await self._checkpoints.commit(progress, self._ports.learners.save)
            progress.seconds["checkpoint"] = time.monotonic() - learned
            await self._publish(progress, messages)
        self._published = dict(progress.versions)
        return progress

    async def _publish(self, progress: Progress, messages: Sequence[int]) -> None:
        started = time.monotonic()
        weights = self._checkpoints.directory(progress.step) / WEIGHTS_FILE
        await self._ports.policies.publish(self._run_id, progress, self._base, weights)
        await self._ports.policies.announce(progress.version)
        progress.seconds["publish"] = time.monotonic() - started
        await self._ports.journal.step_done(progress)
        await self._ports.events.acknowledge(messages)
        self._checkpoints.mark_published(progress.step)

    async def _unless_stopped(self, work: Any) -> Any:
        waiting = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stop.is_set() else waiting.result()
        finally:
            waiting.cancel()
            stop.cancel()


async def _nothing(_: Path) -> None:
    return None


async def _run(helper: Callable[[], Awaitable[None]]) -> None:
    await helper()


def _first(errors: BaseExceptionGroup) -> BaseException:
    inner = errors.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
