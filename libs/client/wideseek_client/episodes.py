"""Episodes: ask, watch, list, cancel.

Invariants: a create carries a request id, so that repeating it never makes two episodes; a watch shows one snapshot,
each event once and in order, and one terminal message, however often the connection drops.
"""

import uuid
from collections.abc import AsyncIterator

from wideseek.events.v1.trajectory_pb2 import TrainingTag
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1.lead_service_pb2_grpc import LeadServiceStub

from wideseek_client.base import Base


class Episodes(Base):
    """The calls of the lead service."""

    async def create_episode(
        self,
        question: str,
        options: pb.EpisodeOptions | None = None,
        *,
        request_id: str = "",
        training: TrainingTag | None = None,
    ) -> pb.Episode:
        """Start an episode; without a `request_id` one is made up."""
        request = pb.CreateEpisodeRequest(
            request_id=request_id or str(uuid.uuid4()), question=question, options=options, training=training
        )
        return (await self._repeat(lambda: self._lead().CreateEpisode(request))).episode

    async def get_episode(self, episode_id: str) -> pb.Episode:
        """An episode as it is now."""
        request = pb.GetEpisodeRequest(episode_id=episode_id)
        return (await self._repeat(lambda: self._lead().GetEpisode(request))).episode

    async def list_episodes(
        self,
        *,
        page_size: int = 50,
        page_token: str = "",
        state: "pb.Episode.State.ValueType" = pb.Episode.STATE_UNSPECIFIED,
    ) -> pb.ListEpisodesResponse:
        """A page of episodes, newest first."""
        request = pb.ListEpisodesRequest(page_size=page_size, page_token=page_token, state=state)
        return await self._repeat(lambda: self._lead().ListEpisodes(request))

    async def cancel_episode(self, episode_id: str) -> pb.Episode:
        """Stop an episode with everything under it."""
        request = pb.CancelEpisodeRequest(episode_id=episode_id)
        return (await self._repeat(lambda: self._lead().CancelEpisode(request))).episode

    async def watch_episode(
        self, episode_id: str, *, after_sequence: int = 0
    ) -> AsyncIterator[pb.WatchEpisodeResponse]:
        """A snapshot, the events after `after_sequence`, then the finished episode."""
        seen, shown = after_sequence, False

        async def stream() -> AsyncIterator[pb.WatchEpisodeResponse]:
            call = self._lead().WatchEpisode(pb.WatchEpisodeRequest(episode_id=episode_id, after_sequence=seen))
            try:
                async for message in call:
                    yield message
            finally:
                call.cancel()

        async for message in self._resume(stream):
            kind = message.WhichOneof("event")
            if kind == "snapshot":
                if shown:
                    continue
                shown = True
            seen = max(seen, message.sequence)
            yield message
            if kind == "finished":
                return

    async def wait_episode(self, episode_id: str) -> pb.Episode:
        """Wait until an episode has ended, and return it."""
        async for message in self.watch_episode(episode_id):
            if message.WhichOneof("event") == "finished":
                return message.finished
        raise AssertionError("a watch ends with the finished episode or raises")

    async def ask(self, question: str, options: pb.EpisodeOptions | None = None) -> pb.Episode:
        """Start an episode and wait until it has ended."""
        episode = await self.create_episode(question, options)
        return await self.wait_episode(episode.episode_id)

    def _lead(self) -> LeadServiceStub:
        return LeadServiceStub(self.channel("lead"))
