"""The one active run: created, resumed, cancelled, watched.

Invariants: at most one run is at work; a run that the service's end interrupts stays RUNNING and goes on from its
checkpoint at the next start; a run that cannot go on ends FAILED with the reason, and the service lives on.
"""

import asyncio
import contextlib
import hashlib
import logging
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_contract.policies import DamagedPolicyError, fetch_directory
from wideseek_kit.errors import AlreadyExists, FailedPrecondition, Internal, NotFound, ServiceError, Unavailable
from wideseek_kit.serve import Readiness

from wideseek_trainer import wire
from wideseek_trainer.adapters.policies import PolicyRegistry
from wideseek_trainer.adapters.records import patiently
from wideseek_trainer.adapters.runs import RunRecords
from wideseek_trainer.adapters.task_files import read_task_set
from wideseek_trainer.core.checkpoint import Checkpoints, Progress
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.driver import Driver
from wideseek_trainer.core.errors import CheckpointError, PolicyUnusableError, TrainerError
from wideseek_trainer.core.launch import Limits
from wideseek_trainer.core.ports import Ports

_log = logging.getLogger(__name__)
_WATCH_POLL = 1.0
_ENDED = (pb.TrainingRun.STATE_SUCCEEDED, pb.TrainingRun.STATE_FAILED, pb.TrainingRun.STATE_CANCELLED)

#: Makes the ports of a run, for as long as the context lasts: (run, its configuration, directory of its first policy).
PortsOf = Callable[[pb.TrainingRun, RunConfig, Path], contextlib.AbstractAsyncContextManager[Ports]]


class RunManager:
    """Owns the active run."""

    def __init__(
        self,
        records: RunRecords,
        policies: PolicyRegistry,
        ports: PortsOf,
        state: Path,
        limits: Limits,
        readiness: Readiness,
    ) -> None:
        """Keep the files of runs below `state`."""
        self._readiness = readiness
        self._records = records
        self._policies = policies
        self._ports = ports
        self._state = state
        self._limits = limits
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._active = ""
        self._driver: Driver | None = None
        self._cancelled = False
        self._changed = asyncio.Event()
        self._resumed = False
        self._stopping = False

    @contextlib.asynccontextmanager
    async def working(self, initial_policy: str = "") -> AsyncIterator[None]:
        """Register the initial policy, resume what was interrupted, and work while the context lasts.

        At its end the active run is interrupted and stays RUNNING.
        """
        await self._readiness.set("runs", "looking for a run to go on with")
        resuming = asyncio.create_task(self._resume(initial_policy))
        try:
            yield
        finally:
            for task in (resuming, self._task):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task

    async def _resume(self, initial_policy: str) -> None:
        try:
            if initial_policy:
                await self._policies.register_initial(initial_policy)
        except OSError as error:
            await self._readiness.set("runs", f"initial policy {initial_policy}: {error}")
            return
        for run in await patiently(self._records.all):
            if run.state == pb.TrainingRun.STATE_RUNNING and self._task is None:
                _log.info("run %s goes on after step %d", run.run_id, run.steps_done)
                self._start(run)
        self._resumed = True
        await self._readiness.set("runs")

    async def create(self, request_id: str, config: pb.TrainingConfig) -> pb.TrainingRun:
        """Start a run.

        Raises:
            InvalidArgument, AlreadyExists (REQUEST_ID_REUSED), FailedPrecondition (RUN_ACTIVE, NO_POLICY),
            Unavailable (STARTING, or the service ends).
        """
        used = wire.run_config(config)
        filled = wire.filled(config, used)
        run_id = f"run-{_identity(request_id)}"
        async with self._lock:
            existing = await self._records.find(run_id)
            if existing is not None:
                if existing.config != filled:
                    raise AlreadyExists(
                        f"request_id {request_id!r} was used for another configuration",
                        reason="REQUEST_ID_REUSED",
                        request_id=request_id,
                    )
                return existing
            with wire.translated():
                await read_task_set(used.task_set_uri)
            if not self._resumed or self._stopping:
                raise Unavailable("the service is not ready for a run", reason="STARTING")
            if self._active:
                raise FailedPrecondition(
                    f"run {self._active} is at work; one at a time", reason="RUN_ACTIVE", run_id=self._active
                )
            try:
                await self._policies.current()
            except NotFound as error:
                raise FailedPrecondition("there is no policy to begin with", reason="NO_POLICY") from error
            run = pb.TrainingRun(run_id=run_id, config=filled, state=pb.TrainingRun.STATE_RUNNING)
            run.create_time.GetCurrentTime()
            await self._records.create(run)
            self._start(run)
            return run

    async def cancel(self, run_id: str) -> pb.TrainingRun:
        """Stop a run after the update under way; of no effect on an ended one."""
        run = await self._records.get(run_id)
        if run_id == self._active:
            self._cancelled = True
            if self._driver is not None:
                self._driver.cancel()
        return run

    async def watch(self, run_id: str, after_step: int) -> AsyncIterator[pb.TrainingRun | pb.TrainingStep]:
        """The run as it is, its updates after `after_step`, and at last the ended run."""
        run = await self._records.get(run_id)
        yield run
        while True:
            for number in range(after_step + 1, run.steps_done + 1):
                step = await self._records.step(run_id, number)
                if step is not None:
                    yield step
                after_step = number
            if run.state in _ENDED:
                yield run
                return
            if self._stopping:
                raise Unavailable(f"the service ends; run {run_id} goes on when it is back", reason="STOPPING")
            changed = self._changed
            with contextlib.suppress(TimeoutError):  # the poll also sees what another process wrote
                async with asyncio.timeout(_WATCH_POLL):
                    await changed.wait()
            run = await self._records.get(run_id)

    async def step_done(self, run_id: str, progress: Progress) -> None:
        """Record an update and wake those who watch."""
        await self._records.step_done(run_id, progress)
        self._wake()

    def stop(self) -> None:
        """Interrupt the run, which stays RUNNING, and send those who watch away: the service is about to end."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _start(self, run: pb.TrainingRun) -> None:
        self._active, self._cancelled, self._driver = run.run_id, False, None
        self._task = asyncio.create_task(self._work(run))

    async def _work(self, run: pb.TrainingRun) -> None:
        error: ServiceError | None = None
        state = pb.TrainingRun.STATE_FAILED
        try:
            finished = await self._train(run)
            state = pb.TrainingRun.STATE_SUCCEEDED if finished else pb.TrainingRun.STATE_CANCELLED
        except TrainerError as fault:
            _log.error("run %s failed: %s", run.run_id, fault)
            error = wire.service_error(fault)
        except ServiceError as fault:
            _log.error("run %s failed: %s", run.run_id, fault)
            error = fault
        except Exception as fault:  # the run ends with it, the service must not
            _log.exception("run %s failed", run.run_id)
            error = Internal(f"the run failed: {type(fault).__name__}; the service's log has the details")
        await self._end(run.run_id, state, error)

    async def _end(self, run_id: str, state: pb.TrainingRun.State.ValueType, error: ServiceError | None) -> None:
        run = await patiently(lambda: self._records.get(run_id))
        run.state = state
        run.end_time.GetCurrentTime()
        if error is not None:
            run.error.CopyFrom(error.to_status())
        await self._records.put(run)
        if error is None:
            shutil.rmtree(self._directory(run_id), ignore_errors=True)  # of use only to a run that goes on
        self._active, self._driver, self._task = "", None, None
        self._wake()

    async def _train(self, run: pb.TrainingRun) -> bool:
        config = wire.run_config(run.config)
        tasks = await read_task_set(config.task_set_uri)
        directory = self._directory(run.run_id)
        checkpoints, base = Checkpoints(directory / "checkpoints"), directory / "base"
        if checkpoints.latest() is None and run.steps_done:
            raise CheckpointError(
                f"{directory} holds no checkpoint, but the run made {run.steps_done} updates", directory=directory
            )
        version = await self._fetch_base(base)
        async with self._ports(run, config, base) as ports:
            self._driver = Driver(run.run_id, config, tasks, ports, checkpoints, base, self._limits)
            if self._cancelled:
                self._driver.cancel()
            await self._driver.begin(version)
            return await self._driver.run()

    async def _fetch_base(self, base: Path) -> int:
        """Copy the policy that the run begins with, once; returns its version."""
        note = base / ".version"
        if note.exists():
            return int(note.read_text(encoding="utf-8"))
        policy = await patiently(self._policies.current)
        scratch = base.with_name("base.tmp")
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            await asyncio.to_thread(fetch_directory, policy.uri, policy.manifest_sha256, scratch)
        except DamagedPolicyError as error:
            raise PolicyUnusableError(f"policy {policy.version}: {error}", version=policy.version) from error
        (scratch / ".version").write_text(str(policy.version), encoding="utf-8")
        scratch.rename(base)
        return policy.version

    def _directory(self, run_id: str) -> Path:
        return self._state / "runs" / run_id


def _identity(request_id: str) -> str:
    if not request_id:
        return uuid.uuid4().hex[:16]
    return hashlib.sha256(request_id.encode()).hexdigest()[:16]
