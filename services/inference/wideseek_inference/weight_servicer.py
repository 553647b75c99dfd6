"""WeightService: the weights of the engine by hand. Served on a port of its own."""

from collections.abc import Awaitable
from typing import Protocol

from grpc import aio
from wideseek.inference.v1 import weight_service_pb2 as pb
from wideseek.inference.v1 import weight_service_pb2_grpc as rpc
from wideseek_kit.errors import FailedPrecondition

from wideseek_inference import wire
from wideseek_inference.core.swap import Swapper
from wideseek_inference.errors import translated

SERVICE_NAME = "wideseek.inference.v1.WeightService"


class Load(Protocol):
    """What the engine counts."""

    in_flight: int
    lost: int


class WeightServicer(rpc.WeightServiceServicer):
    """Serves one engine's weights."""

    def __init__(self, swapper: Swapper | None, load: Load | None) -> None:
        """Serve `swapper`; None where no route leads to an engine."""
        self._given = swapper
        self._load = load

    async def UpdateWeights(
        self,
        request: pb.UpdateWeightsRequest,
        context: aio.ServicerContext[pb.UpdateWeightsRequest, Awaitable[pb.UpdateWeightsResponse]],
    ) -> pb.UpdateWeightsResponse:
        """Load a version."""
        with translated():
            await self._swapper.update(wire.wanted_from(request))
        return pb.UpdateWeightsResponse(state=self._state())

    async def PauseGeneration(
        self,
        request: pb.PauseGenerationRequest,
        context: aio.ServicerContext[pb.PauseGenerationRequest, Awaitable[pb.PauseGenerationResponse]],
    ) -> pb.PauseGenerationResponse:
        """Stop between two steps."""
        with translated():
            await self._swapper.pause()
        return pb.PauseGenerationResponse(state=self._state())

    async def ResumeGeneration(
        self,
        request: pb.ResumeGenerationRequest,
        context: aio.ServicerContext[pb.ResumeGenerationRequest, Awaitable[pb.ResumeGenerationResponse]],
    ) -> pb.ResumeGenerationResponse:
        """Go on."""
        with translated():
            await self._swapper.resume()
        return pb.ResumeGenerationResponse(state=self._state())

    async def GetWeightState(
        self,
        request: pb.GetWeightStateRequest,
        context: aio.ServicerContext[pb.GetWeightStateRequest, Awaitable[pb.GetWeightStateResponse]],
    ) -> pb.GetWeightStateResponse:
        """Say what is served."""
        return pb.GetWeightStateResponse(state=self._state())

    @property
    def _swapper(self) -> Swapper:
        if self._given is None:
            raise FailedPrecondition("no route leads to an engine here, so there are no weights", reason="NO_ENGINE")
        return self._given

    def _state(self) -> pb.WeightState:
        load = self._load
        return wire.state_from(self._swapper.state, load.in_flight if load else 0, load.lost if load else 0)
