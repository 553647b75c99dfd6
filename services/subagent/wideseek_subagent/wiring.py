"""Builds the service from its settings and serves it."""

from contextlib import AsyncExitStack
from pathlib import Path

from grpc import aio
from wideseek.subagent.v1 import subagent_service_pb2_grpc as pb_grpc
from wideseek_agent.pack import PackError, Shelf
from wideseek_kit.channels import open_channel
from wideseek_kit.entry import StartError
from wideseek_kit.serve import Readiness, serve

from wideseek_subagent.adapters.backends import RemoteBackends
from wideseek_subagent.servicer import SubagentServicer
from wideseek_subagent.settings import Settings

SERVICE_NAMES = ("wideseek.subagent.v1.SubagentService",)


def register(server: aio.Server, inference: aio.Channel, tools: aio.Channel, shelf: Shelf, settings: Settings) -> None:
    """Add the service to `server`."""
    backends = RemoteBackends(
        inference,
        tools,
        summarizer_model=settings.summarizer_model,
        tool_timeout=settings.tool_timeout,
        turn_timeout=settings.turn_timeout,
    )
    pb_grpc.add_SubagentServiceServicer_to_server(SubagentServicer(backends, shelf, settings), server)


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    shelf = Shelf(Path(settings.prompt_packs_dir) if settings.prompt_packs_dir else None)
    try:
        shelf.pack(settings.prompt_pack, "en")
    except PackError as error:
        raise StartError(f"WIDESEEK_SUBAGENT_PROMPT_PACK: {error}") from error
    async with AsyncExitStack() as stack:
        inference = await stack.enter_async_context(open_channel(settings.inference_target))
        tools = await stack.enter_async_context(open_channel(settings.tools_target))
        await serve(
            lambda server: register(server, inference, tools, shelf, settings),
            settings,
            readiness=Readiness(SERVICE_NAMES),
            service_names=SERVICE_NAMES,
        )
