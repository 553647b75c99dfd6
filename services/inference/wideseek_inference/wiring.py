"""Puts the service together.

Invariants: the engine starts before anything of gRPC or NATS does, as its process is forked from this one; it ends
after the last call has been drained; background work that fails ends the service, and so does the engine's death:
who runs the service starts it again.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping

import httpx
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_rpc
from wideseek.inference.v1 import weight_service_pb2_grpc as weight_rpc
from wideseek_kit.bus import open_bus
from wideseek_kit.entry import StartError
from wideseek_kit.serve import Readiness, running, serve, write_port_file

from wideseek_inference import servicer, weight_servicer
from wideseek_inference.adapters.follower import Follower
from wideseek_inference.adapters.openai_route import OpenAIRoute, resolve_key
from wideseek_inference.core.turns import Route
from wideseek_inference.engine import EngineParts, open_engine
from wideseek_inference.settings import RouteSettings, Settings

_ENGINE_CHECK = 0.5


async def run(settings: Settings) -> None:
    """Serve until a signal comes.

    Raises:
        StartError: the engine's process ended; what it had is told ENGINE_DEAD.
    """
    readiness = Readiness([servicer.SERVICE_NAME])
    async with contextlib.AsyncExitStack() as stack:
        engine: EngineParts | None = None
        if any(route.backend == "vllm" for route in settings.all_routes.values()):
            engine = await stack.enter_async_context(open_engine(settings))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=settings.upstream_timeout))
        routes = {name: _route(route, engine, client) for name, route in settings.all_routes.items()}
        if engine is not None:
            await stack.enter_async_context(_background(_watch(engine, readiness)))
            if settings.nats:
                bus = await stack.enter_async_context(open_bus(settings.nats, "inference"))
                follower = Follower(bus, engine.swapper, readiness)
                await stack.enter_async_context(_background(follower.run()))
        await stack.enter_async_context(_weight_server(settings, engine, readiness))
        await _serve(settings, routes, readiness)
        died = engine is not None and engine.vllm.dead
    if died:
        raise StartError("the engine's process has ended")


async def _serve(settings: Settings, routes: Mapping[str, Route], readiness: Readiness) -> None:
    inference = servicer.InferenceServicer(routes)
    await serve(
        lambda server: inference_rpc.add_InferenceServiceServicer_to_server(inference, server),
        settings,
        readiness=readiness,
        service_names=[servicer.SERVICE_NAME],
    )


@contextlib.asynccontextmanager
async def _weight_server(settings: Settings, engine: EngineParts | None, readiness: Readiness) -> AsyncIterator[None]:
    weights = weight_servicer.WeightServicer(engine.swapper if engine else None, engine.vllm if engine else None)
    async with running(
        lambda server: weight_rpc.add_WeightServiceServicer_to_server(weights, server),
        settings.listen_weights,
        readiness=readiness,
        service_names=[weight_servicer.SERVICE_NAME],
    ) as port:
        if settings.weights_port_file:
            write_port_file(settings.weights_port_file, port)
        yield


def _route(route: RouteSettings, engine: EngineParts | None, client: httpx.AsyncClient) -> Route:
    if route.backend == "vllm" and engine is not None:
        return engine.route
    return OpenAIRoute(client, route.url, route.model, resolve_key(route), route.max_context_tokens)


async def _watch(engine: EngineParts, readiness: Readiness) -> None:
    while not engine.vllm.dead:  # noqa: ASYNC110 -- vLLM tells it by a flag only
        await asyncio.sleep(_ENGINE_CHECK)
    await readiness.set("engine", "the engine's process has ended")
    os.kill(os.getpid(), signal.SIGTERM)  # drains like any other end


@contextlib.asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work)
        yield
        task.cancel()
