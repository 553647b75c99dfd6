"""InferenceService: routes by model name."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek_kit.errors import InvalidArgument, NotFound

from wideseek_inference import wire
from wideseek_inference.core.turns import Route
from wideseek_inference.errors import translated
from wideseek_inference.settings import POLICY

SERVICE_NAME = "wideseek.inference.v1.InferenceService"
_PAGE = 100


class InferenceServicer(rpc.InferenceServiceServicer):
    """Serves a table of routes."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Serve `routes`, by name."""
        self._routes = routes

    async def Generate(  # type: ignore[override]  # the stub does not know async generators
        self, request: pb.GenerateRequest, context: aio.ServicerContext[pb.GenerateRequest, pb.GenerateResponse]
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Generate one turn."""
        route = self._route(request.model)
        with translated():
            wanted = wire.request_from(request)
            wanted.check()
            sequence = 0
            async with contextlib.aclosing(route.generate(wanted)) as events:
                async for event in events:
                    sequence += 1
                    yield wire.response_from(event, sequence)

    async def GetModel(
        self,
        request: pb.GetModelRequest,
        context: aio.ServicerContext[pb.GetModelRequest, Awaitable[pb.GetModelResponse]],
    ) -> pb.GetModelResponse:
        """Describe one route."""
        info = self._route(request.model).info(request.model or POLICY)
        return pb.GetModelResponse(model=wire.model_from(info))

    async def ListModels(
        self,
        request: pb.ListModelsRequest,
        context: aio.ServicerContext[pb.ListModelsRequest, Awaitable[pb.ListModelsResponse]],
    ) -> pb.ListModelsResponse:
        """List the routes by name; the page token is the name to start behind."""
        if request.page_token and request.page_token not in self._routes:
            raise InvalidArgument("page_token", f"{request.page_token!r} is not from an earlier answer")
        names = [name for name in sorted(self._routes) if name > request.page_token]
        page = names[: request.page_size or _PAGE]
        models = [wire.model_from(self._routes[name].info(name)) for name in page]
        return pb.ListModelsResponse(models=models, next_page_token=page[-1] if len(page) < len(names) else "")

    def _route(self, name: str) -> Route:
        route = self._routes.get(name or POLICY)
        if route is None:
            known = ", ".join(sorted(self._routes))
            raise NotFound(f"model {name!r} is none of {known}", reason="MODEL_NOT_FOUND", model=name, known=known)
        return route
