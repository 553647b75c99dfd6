"""The inference service, as the driver sees it: which version it serves."""

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek_kit.channels import calling
from wideseek_kit.errors import ServiceError

from wideseek_trainer.core.ports import Busy


class InferenceServing:
    """Asks for the model route that the episodes use."""

    def __init__(self, channel: aio.Channel, model: str) -> None:
        """`model` is the route; empty means the default one."""
        self._stub = rpc.InferenceServiceStub(channel)
        self._model = model

    async def version(self) -> int:
        """The policy version that it serves."""
        try:
            with calling():
                answer = await self._stub.GetModel(pb.GetModelRequest(model=self._model), timeout=10.0)
        except ServiceError as error:
            raise Busy(error.message) from error
        return answer.model.version
