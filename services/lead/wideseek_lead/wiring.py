"""Builds the service from its settings and runs it.

Invariant: what is opened first is closed last; episodes are ended before the connections under them go.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from wideseek.lead.v1 import lead_service_pb2_grpc as pb_grpc
from wideseek.subagent.v1 import subagent_service_pb2_grpc as subagent_grpc
from wideseek_agent.pack import PackError, Shelf
from wideseek_kit.bus import Bus, open_bus
from wideseek_kit.channels import open_channel
from wideseek_kit.entry import StartError
from wideseek_kit.serve import Readiness, serve

from wideseek_lead.adapters.store import EpisodeStore
from wideseek_lead.adapters.subagents import RemoteSubagents
from wideseek_lead.cancelling import Canceller
from wideseek_lead.core.delegation import Width
from wideseek_lead.keeper import Keeper
from wideseek_lead.launcher import Launcher
from wideseek_lead.servicer import SERVICE, LeadServicer
from wideseek_lead.settings import LeadSettings
from wideseek_lead.sweeper import Sweeper
from wideseek_lead.wire import Defaults

_GRACE_SHARE = 0.8  # of the drain's grace: what is left tells the watchers of the end


class Lead:
    """The parts of a running lead."""

    def __init__(self, settings: LeadSettings, bus: Bus, store: EpisodeStore, launcher: Launcher) -> None:
        """Put the parts together; nothing runs yet."""
        self.keeper = Keeper(
            bus,
            store,
            launcher,
            max_episodes=settings.max_episodes,
            lease_ttl=settings.lease_ttl,
            snapshot_interval=settings.snapshot_interval,
            backlog_bytes=settings.backlog_bytes,
        )
        self.canceller = Canceller(bus, store, self.keeper, wait=settings.cancel_wait)
        self.sweeper = Sweeper(bus, store, lease_ttl=settings.lease_ttl, holds=self.keeper.holds)
        self.servicer = LeadServicer(bus, store, self.keeper, self.canceller, _defaults(settings))


@contextlib.asynccontextmanager
async def open_lead(settings: LeadSettings, shelf: Shelf, readiness: Readiness) -> AsyncIterator[Lead]:
    """A lead at work, but for its server."""
    store = EpisodeStore(lease_ttl=settings.lease_ttl, retention=settings.retention, log_bytes=settings.log_bytes)
    listening: list[Canceller] = []

    async def on_up(bus: Bus) -> None:
        await store.open(bus)
        for canceller in listening:
            await canceller.open()

    async with contextlib.AsyncExitStack() as stack:
        inference = await stack.enter_async_context(open_channel(settings.inference))
        subagent = await stack.enter_async_context(open_channel(settings.subagent))
        bus = await stack.enter_async_context(
            open_bus(settings.nats_url, "wideseek-lead", readiness=readiness, on_up=on_up)
        )
        runner = RemoteSubagents(subagent_grpc.SubagentServiceStub(subagent))
        launcher = Launcher(inference, runner, _width(settings), shelf=shelf, turn_timeout=settings.turn_timeout)
        lead = Lead(settings, bus, store, launcher)
        listening.append(lead.canceller)  # before the connection can be up: nothing was awaited since it was opened
        sweeping = asyncio.create_task(lead.sweeper.run())
        try:
            async with lead.keeper.running():
                yield lead
        finally:
            sweeping.cancel()
            await asyncio.gather(sweeping, return_exceptions=True)


async def run(settings: LeadSettings) -> None:
    """Run the service until it is told to stop.

    Raises:
        StartError: the default prompt pack is not there.
    """
    shelf = Shelf(Path(settings.prompt_packs_dir) if settings.prompt_packs_dir else None)
    try:
        shelf.pack(settings.prompt_pack, "en")
    except PackError as error:
        raise StartError(f"WIDESEEK_LEAD_PROMPT_PACK={settings.prompt_pack!r}: {error}") from error
    readiness = Readiness([SERVICE])
    async with open_lead(settings, shelf, readiness) as lead:
        await serve(
            lambda server: pb_grpc.add_LeadServiceServicer_to_server(lead.servicer, server),
            settings,
            readiness=readiness,
            service_names=[SERVICE],
            on_drain=lambda: lead.keeper.drain(_GRACE_SHARE * settings.drain_grace),
        )


def _width(settings: LeadSettings) -> Width:
    return Width(
        parallel=settings.max_parallel_subagents,
        tool_calls=settings.subagent_tool_calls,
        output_tokens=settings.subagent_output_tokens,
        context_tokens=settings.max_context_tokens,
    )


def _defaults(settings: LeadSettings) -> Defaults:
    return Defaults(
        prompt_pack=settings.prompt_pack,
        max_subagents=settings.max_subagents,
        max_turns=settings.max_turns,
        max_single_turns=settings.max_single_turns,
        max_subagent_turns=settings.max_subagent_turns,
        max_tool_calls=settings.max_tool_calls,
        max_output_tokens=settings.max_output_tokens,
        deadline=settings.deadline,
    )
