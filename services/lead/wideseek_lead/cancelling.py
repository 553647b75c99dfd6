"""Cancels an episode wherever it is at work.

Invariants: the replica that runs an episode answers a request to cancel it once the cancelling has begun; a caller
waits a bounded time for the end, and is told when nobody answered.
"""

import asyncio

from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from wideseek_kit.bus import Bus

from wideseek_lead.adapters.store import EpisodeStore, reaching_nats
from wideseek_lead.core.episode import Episode
from wideseek_lead.errors import OwnerUnreachable
from wideseek_lead.keeper import Keeper

_SUBJECT = "wideseek.lead.v1.cancel"
_ASK_SECONDS = 0.5
_LOOK_SECONDS = 0.05


class Canceller:
    """Cancels episodes of this replica at others' requests, and the other way round."""

    def __init__(self, bus: Bus, store: EpisodeStore, keeper: Keeper, *, wait: float) -> None:
        """`cancel` waits up to `wait` seconds for an episode's end."""
        self._bus = bus
        self._store = store
        self._keeper = keeper
        self._wait = wait

    async def open(self) -> None:
        """Listen to the other replicas."""
        await self._bus.client.subscribe(f"{_SUBJECT}.*", cb=self._asked)

    async def cancel(self, episode_id: str) -> Episode:
        """Cancel an episode; the episode afterwards, which may still be on its way to its end.

        Raises:
            EpisodeNotFound: there is no such episode.
            OwnerUnreachable: the lead that runs it does not answer.
            Unavailable: NATS is out of reach.
        """
        time = asyncio.get_running_loop().time
        until, heard = time() + self._wait, False
        episode = await self._store.get(episode_id)
        while not episode.ended and time() < until:
            heard = heard or self._keeper.cancel(episode_id) or await self._ask(episode_id)
            await asyncio.sleep(_LOOK_SECONDS)
            episode = await self._store.get(episode_id)
        if not episode.ended and not heard:
            raise OwnerUnreachable(episode_id, self._wait)
        return episode

    async def _ask(self, episode_id: str) -> bool:
        with reaching_nats():
            try:
                await self._bus.client.request(f"{_SUBJECT}.{episode_id}", timeout=_ASK_SECONDS)
                return True
            except (NatsTimeoutError, NoRespondersError):
                return False

    async def _asked(self, message: Msg) -> None:
        if self._keeper.cancel(message.subject.rsplit(".", 1)[1]):
            await message.respond(b"cancelling")
