"""LeadService on the wire."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from grpc import aio
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1 import lead_service_pb2_grpc as pb_grpc
from wideseek_kit.bus import Bus

from wideseek_lead import wire
from wideseek_lead.adapters.log import LogReader
from wideseek_lead.adapters.store import EpisodeStore
from wideseek_lead.cancelling import Canceller
from wideseek_lead.keeper import Keeper
from wideseek_lead.watch import watch

SERVICE = pb.DESCRIPTOR.services_by_name["LeadService"].full_name


class LeadServicer(pb_grpc.LeadServiceServicer):
    """The methods of the contract; each waits a moment for NATS and then says that it is away."""

    def __init__(
        self, bus: Bus, store: EpisodeStore, keeper: Keeper, canceller: Canceller, defaults: wire.Defaults
    ) -> None:
        """Answer for `keeper` and for what all replicas have stored."""
        self._bus = bus
        self._store = store
        self._keeper = keeper
        self._canceller = canceller
        self._defaults = defaults
        self._reader = LogReader(bus)

    async def CreateEpisode(
        self, request: pb.CreateEpisodeRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.CreateEpisodeResponse:
        """Start an episode."""
        spec = wire.spec_from_request(request, self._defaults)
        episode = await self._keeper.create(spec, request.request_id, _fingerprint(request))
        return pb.CreateEpisodeResponse(episode=wire.episode_to_wire(episode))

    async def GetEpisode(
        self, request: pb.GetEpisodeRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.GetEpisodeResponse:
        """Return an episode."""
        await self._bus.connected()
        return pb.GetEpisodeResponse(episode=wire.episode_to_wire(await self._store.get(request.episode_id)))

    async def ListEpisodes(
        self, request: pb.ListEpisodesRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.ListEpisodesResponse:
        """List episodes, newest first."""
        size, state = wire.page_size(request), wire.state_filter(request)
        await self._bus.connected()
        page, token = await self._store.list(size, request.page_token, state)
        episodes = [wire.without_rows(wire.episode_to_wire(episode)) for episode in page]
        return pb.ListEpisodesResponse(episodes=episodes, next_page_token=token)

    async def CancelEpisode(
        self, request: pb.CancelEpisodeRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.CancelEpisodeResponse:
        """Stop an episode with everything under it."""
        await self._bus.connected()
        return pb.CancelEpisodeResponse(episode=wire.episode_to_wire(await self._canceller.cancel(request.episode_id)))

    async def WatchEpisode(
        self, request: pb.WatchEpisodeRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.WatchEpisodeResponse]:
        """Stream an episode from any point."""
        await self._bus.connected()
        async with aclosing(watch(self._store, self._reader, request.episode_id, request.after_sequence)) as parts:
            async for part in parts:
                yield part


def _fingerprint(request: pb.CreateEpisodeRequest) -> str:
    contents = pb.CreateEpisodeRequest()
    contents.CopyFrom(request)
    contents.ClearField("request_id")
    return hashlib.sha256(wire.serialised(contents)).hexdigest()
