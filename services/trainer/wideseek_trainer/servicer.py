"""TrainerService: messages in, messages out."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as rpc
from wideseek_kit.errors import InvalidArgument

from wideseek_trainer.adapters.policies import PolicyRegistry
from wideseek_trainer.adapters.runs import RunRecords
from wideseek_trainer.manager import RunManager

T = TypeVar("T")
_PAGE, _MOST_PAGE = 50, 1000


class TrainerServicer(rpc.TrainerServiceServicer):
    """The service's face."""

    def __init__(self, manager: RunManager, records: RunRecords, policies: PolicyRegistry) -> None:
        """Answer from these."""
        self._manager = manager
        self._records = records
        self._policies = policies

    async def CreateTrainingRun(
        self, request: pb.CreateTrainingRunRequest, context: Any
    ) -> pb.CreateTrainingRunResponse:
        """Start a run."""
        return pb.CreateTrainingRunResponse(run=await self._manager.create(request.request_id, request.config))

    async def GetTrainingRun(self, request: pb.GetTrainingRunRequest, context: Any) -> pb.GetTrainingRunResponse:
        """Show a run."""
        return pb.GetTrainingRunResponse(run=await self._records.get(request.run_id))

    async def ListTrainingRuns(self, request: pb.ListTrainingRunsRequest, context: Any) -> pb.ListTrainingRunsResponse:
        """Show runs, newest first."""
        runs, token = _page(await self._records.all(), request.page_size, request.page_token)
        return pb.ListTrainingRunsResponse(runs=runs, next_page_token=token)

    async def CancelTrainingRun(
        self, request: pb.CancelTrainingRunRequest, context: Any
    ) -> pb.CancelTrainingRunResponse:
        """Stop a run."""
        return pb.CancelTrainingRunResponse(run=await self._manager.cancel(request.run_id))

    async def WatchTrainingRun(
        self, request: pb.WatchTrainingRunRequest, context: Any
    ) -> AsyncIterator[pb.WatchTrainingRunResponse]:
        """Follow a run to its end."""
        sequence = 0
        async for part in self._manager.watch(request.run_id, request.after_step):
            sequence += 1
            if isinstance(part, pb.TrainingStep):
                yield pb.WatchTrainingRunResponse(sequence=sequence, step=part)
            elif sequence == 1:
                yield pb.WatchTrainingRunResponse(sequence=sequence, snapshot=part)
            else:
                yield pb.WatchTrainingRunResponse(sequence=sequence, finished=part)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Any) -> pb.ListPoliciesResponse:
        """Show versions, newest first."""
        policies, token = _page(await self._policies.all(), request.page_size, request.page_token)
        return pb.ListPoliciesResponse(policies=policies, next_page_token=token)

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Any) -> pb.GetPolicyResponse:
        """Show a version."""
        return pb.GetPolicyResponse(policy=await self._policies.get(request.version))

    async def PromotePolicy(self, request: pb.PromotePolicyRequest, context: Any) -> pb.PromotePolicyResponse:
        """Make a version the served one."""
        return pb.PromotePolicyResponse(policy=await self._policies.promote(request.version))


def _page(items: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """A page of `items`; tokens are offsets."""
    if token and not token.isdigit():
        raise InvalidArgument("page_token", f"{token!r} is not from an earlier answer")
    if size > _MOST_PAGE:
        raise InvalidArgument("page_size", f"{size} is above {_MOST_PAGE}", value=size, most=_MOST_PAGE)
    start = int(token or 0)
    end = start + (size or _PAGE)
    return items[start:end], str(end) if end < len(items) else ""
