"""Training runs and policy versions.

Invariants: a create carries a request id, so that repeating it never makes two runs; a watch shows one snapshot, each
update once, and one terminal message, however often the connection drops.
"""

import uuid
from collections.abc import AsyncIterator

from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek.trainer.v1.trainer_service_pb2_grpc import TrainerServiceStub

from wideseek_client.base import Base


class Training(Base):
    """The calls of the trainer service."""

    async def create_training_run(self, config: pb.TrainingConfig, *, request_id: str = "") -> pb.TrainingRun:
        """Start a run; without a `request_id` one is made up."""
        request = pb.CreateTrainingRunRequest(request_id=request_id or str(uuid.uuid4()), config=config)
        return (await self._repeat(lambda: self._trainer().CreateTrainingRun(request))).run

    async def get_training_run(self, run_id: str) -> pb.TrainingRun:
        """A run as it is now."""
        request = pb.GetTrainingRunRequest(run_id=run_id)
        return (await self._repeat(lambda: self._trainer().GetTrainingRun(request))).run

    async def list_training_runs(self, *, page_size: int = 50, page_token: str = "") -> pb.ListTrainingRunsResponse:
        """A page of runs, newest first."""
        request = pb.ListTrainingRunsRequest(page_size=page_size, page_token=page_token)
        return await self._repeat(lambda: self._trainer().ListTrainingRuns(request))

    async def cancel_training_run(self, run_id: str) -> pb.TrainingRun:
        """Stop a run after the update under way."""
        request = pb.CancelTrainingRunRequest(run_id=run_id)
        return (await self._repeat(lambda: self._trainer().CancelTrainingRun(request))).run

    async def watch_training_run(
        self, run_id: str, *, after_step: int = 0
    ) -> AsyncIterator[pb.WatchTrainingRunResponse]:
        """A snapshot, the updates after `after_step`, then the finished run."""
        seen, shown = after_step, False

        async def stream() -> AsyncIterator[pb.WatchTrainingRunResponse]:
            call = self._trainer().WatchTrainingRun(pb.WatchTrainingRunRequest(run_id=run_id, after_step=seen))
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

        async for message in self._resume(stream):
            kind = message.WhichOneof("event")
            if kind == "snapshot":
                if shown:
                    continue
                shown = True
            elif kind == "step":
                seen = max(seen, message.step.step)
            yield message
            if kind == "finished":
                return

    async def list_policies(self, *, page_size: int = 50, page_token: str = "") -> pb.ListPoliciesResponse:
        """A page of policy versions, newest first."""
        request = pb.ListPoliciesRequest(page_size=page_size, page_token=page_token)
        return await self._repeat(lambda: self._trainer().ListPolicies(request))

    async def get_policy(self, version: int) -> pb.Policy:
        """A policy version."""
        request = pb.GetPolicyRequest(version=version)
        return (await self._repeat(lambda: self._trainer().GetPolicy(request))).policy

    async def promote_policy(self, version: int) -> pb.Policy:
        """Make a version the one that inference serves."""
        request = pb.PromotePolicyRequest(version=version)
        return (await self._repeat(lambda: self._trainer().PromotePolicy(request))).policy

    def _trainer(self) -> TrainerServiceStub:
        return TrainerServiceStub(self.channel("trainer"))
