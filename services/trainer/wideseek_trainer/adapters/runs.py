"""Records of training runs: bucket `training-runs`, key `<run>` a TrainingRun, `<run>.step.<n>` a TrainingStep.

Invariant: a step's record is written before the run says that it is done: watchers find every step they are told of.
"""

from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_kit.bus import Bus
from wideseek_kit.errors import NotFound

from wideseek_trainer import wire
from wideseek_trainer.adapters.records import Records, patiently
from wideseek_trainer.core.checkpoint import Progress

BUCKET = "training-runs"


class RunRecords:
    """What is known of runs, past and present."""

    def __init__(self, bus: Bus) -> None:
        """Use the bus's bucket."""
        self._records = Records(bus, BUCKET)

    async def create(self, run: pb.TrainingRun) -> bool:
        """Store a new run; False when there is one of its id."""
        return await self._records.create(run.run_id, run.SerializeToString())

    async def put(self, run: pb.TrainingRun) -> None:
        """Store a run, for as long as it takes."""
        await patiently(lambda: self._records.put(run.run_id, run.SerializeToString()))

    async def find(self, run_id: str) -> pb.TrainingRun | None:
        """A run, or None."""
        usable = run_id and all(letter.isalnum() or letter in "-_" for letter in run_id)
        value = await self._records.get(run_id) if usable else None
        return None if value is None else pb.TrainingRun.FromString(value)

    async def get(self, run_id: str) -> pb.TrainingRun:
        """A run.

        Raises:
            NotFound: TRAINING_RUN_NOT_FOUND.
        """
        run = await self.find(run_id)
        if run is None:
            raise NotFound(f"no training run {run_id!r}", reason="TRAINING_RUN_NOT_FOUND", run_id=run_id)
        return run

    async def all(self) -> list[pb.TrainingRun]:
        """All runs, newest first."""
        keys = [key for key in await self._records.keys() if "." not in key]
        found = [await self.find(key) for key in keys]
        runs = [run for run in found if run is not None]
        return sorted(runs, key=lambda run: (run.create_time.ToNanoseconds(), run.run_id), reverse=True)

    async def step(self, run_id: str, step: int) -> pb.TrainingStep | None:
        """An update's record."""
        value = await self._records.get(f"{run_id}.step.{step}")
        return None if value is None else pb.TrainingStep.FromString(value)

    async def step_done(self, run_id: str, progress: Progress) -> None:
        """Record an update, and the run's progress with it."""

        async def write() -> None:
            run = await self.get(run_id)
            before = await self.step(run_id, progress.step - 1)
            previous = before.time if before is not None else run.create_time
            step = wire.training_step(progress, previous.ToMilliseconds() / 1000)
            await self._records.put(f"{run_id}.step.{progress.step}", step.SerializeToString())
            run.steps_done = progress.step
            run.policy_version = progress.version
            run.counters.CopyFrom(wire.counters(progress))
            await self._records.put(run_id, run.SerializeToString())

        await patiently(write)
