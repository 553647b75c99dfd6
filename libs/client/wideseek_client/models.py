"""Models, weights and health: what is served, and whether it is ready."""

from grpc_health.v1 import health_pb2, health_pb2_grpc
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import weight_service_pb2 as weights_pb
from wideseek.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from wideseek.inference.v1.weight_service_pb2_grpc import WeightServiceStub
from wideseek_kit.channels import calling

from wideseek_client.base import Base

#: Full name of the service that each endpoint serves, by which its readiness is asked.
SERVICE_NAMES = {
    "lead": "wideseek.lead.v1.LeadService",
    "subagent": "wideseek.subagent.v1.SubagentService",
    "trainer": "wideseek.trainer.v1.TrainerService",
    "tools": "wideseek.tools.v1.ToolsService",
    "inference": "wideseek.inference.v1.InferenceService",
    "weights": "wideseek.inference.v1.WeightService",
}


class Models(Base):
    """The calls of the inference service, its weight service, and of every service's health service."""

    async def list_models(self) -> pb.ListModelsResponse:
        """The model routes, by name."""
        stub = InferenceServiceStub(self.channel("inference"))
        return await self._repeat(lambda: stub.ListModels(pb.ListModelsRequest()))

    async def get_model(self, model: str = "") -> pb.Model:
        """One model route; empty means the policy."""
        stub = InferenceServiceStub(self.channel("inference"))
        return (await self._repeat(lambda: stub.GetModel(pb.GetModelRequest(model=model)))).model

    async def get_weight_state(self) -> weights_pb.WeightState:
        """Which policy version inference serves, and what its swaps cost."""
        stub = WeightServiceStub(self.channel("weights"))
        return (await self._repeat(lambda: stub.GetWeightState(weights_pb.GetWeightStateRequest()))).state

    async def is_ready(self, service: str, *, timeout: float = 2.0) -> bool:  # noqa: ASYNC109 -- gRPC enforces it
        """Whether `service` says that it can work; asked once.

        Raises:
            Unavailable: it does not answer.
        """
        stub = health_pb2_grpc.HealthStub(self.channel(service))
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAMES[service])
        with calling():
            response = await stub.Check(request, timeout=timeout)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
