"""The lead service, as the driver sees it."""

from grpc import aio
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1 import lead_service_pb2_grpc as rpc
from wideseek_kit.channels import calling
from wideseek_kit.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)

from wideseek_trainer import wire
from wideseek_trainer.core.errors import EpisodeRefusedError
from wideseek_trainer.core.ports import Busy, EpisodeRequest

_TIMEOUT = 30.0
_BUSY = (Unavailable, ResourceExhausted, DeadlineExceeded, Aborted)
_REFUSED = (InvalidArgument, AlreadyExists, FailedPrecondition, NotFound)


class LeadEpisodes:
    """Creates and cancels the episodes of a run."""

    def __init__(self, channel: aio.Channel, run_id: str, options: pb.EpisodeOptions) -> None:
        """`options` are those of every episode of the run, before its task's own."""
        self._stub = rpc.LeadServiceStub(channel)
        self._run_id = run_id
        self._options = options

    async def create(self, request: EpisodeRequest) -> str:
        """Start an episode, or find the one that the same request started before."""
        message = wire.episode_request(request, self._run_id, self._options)
        try:
            with calling():
                answer = await self._stub.CreateEpisode(message, timeout=_TIMEOUT)
        except _BUSY as error:
            raise Busy(error.message) from error
        except ServiceError as error:
            # An internal error of the lead may pass; what it refuses stays refused.
            if not isinstance(error, _REFUSED):
                raise Busy(error.message) from error
            raise EpisodeRefusedError(
                f"episode {request.request_id} (task {request.task.task_id}): {error.message}",
                task=request.task.task_id,
                lead_reason=error.reason,
            ) from error
        return answer.episode.episode_id

    async def cancel(self, episode: str) -> None:
        """Stop an episode."""
        try:
            with calling():
                await self._stub.CancelEpisode(pb.CancelEpisodeRequest(episode_id=episode), timeout=_TIMEOUT)
        except NotFound:
            return
        except ServiceError as error:
            raise Busy(error.message) from error
