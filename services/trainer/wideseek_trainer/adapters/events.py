"""The episode logs on JetStream, through a durable pull consumer of the run's own.

Invariants: messages come in stream order, each at least once after the sequence that was asked for; a gap (a message
that the server sent and a lost connection swallowed) is noticed and read again. What was consumed is told by the
caller's own watermark: acknowledgements do not survive a crash of the server, they only show progress to operators.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError, ObjectNotFoundError
from wideseek.events.v1 import trajectory_pb2 as pb
from wideseek_contract import episodes
from wideseek_kit.bus import AWAY, Bus, heed_cancellation

from wideseek_trainer import wire
from wideseek_trainer.adapters.records import patiently
from wideseek_trainer.core.ports import Delivery

_BATCH = 256
_WAIT = 1.0
_IDLE_CHECKS = 10
_log = logging.getLogger(__name__)


class JetStreamEvents:
    """The stream for one run."""

    def __init__(self, bus: Bus, run_id: str) -> None:
        """Prepare; `open` starts reading."""
        self._bus = bus
        self._run_id = run_id
        self._durable = f"trainer-{run_id}"
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._after = 0
        self._delivered = 0
        self._idle = 0
        self._messages: dict[int, Msg] = {}

    async def last_sequence(self) -> int:
        """The stream's newest sequence."""

        async def ask() -> int:
            await self._bus.connected()
            await episodes.ensure_stream(self._bus)
            return int((await self._bus.jetstream.stream_info(episodes.STREAM)).state.last_seq)

        return await patiently(ask)

    async def open(self, after: int) -> None:
        """Read from the first message after `after`."""
        self._after = after
        self._messages.clear()
        await patiently(self._subscribe)

    async def _subscribe(self) -> None:
        await self._bus.connected()
        await episodes.ensure_stream(self._bus)
        await self._delete_consumer()
        config = ConsumerConfig(
            durable_name=self._durable,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._after + 1,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=6 * 3600.0,  # an unacknowledged message waits for its step, it is not lost
            max_ack_pending=-1,
        )
        self._subscription = await self._bus.jetstream.pull_subscribe(
            episodes.SUBJECTS, durable=self._durable, stream=episodes.STREAM, config=config
        )
        self._delivered = self._idle = 0

    async def _delete_consumer(self) -> None:
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None
        try:
            await self._bus.jetstream.delete_consumer(episodes.STREAM, self._durable)
        except NotFoundError:
            return  # the first time

    async def fetch(self) -> Sequence[Delivery]:
        """The next messages, in order."""
        heed_cancellation()  # of the call before: its caller asks again and again
        try:
            return await self._fetch()
        except TimeoutError:
            self._idle += 1
            if self._idle % _IDLE_CHECKS == 0:
                await self._check()
            return []
        except AWAY as error:
            _log.warning("events: %s; reading on after %d", str(error) or type(error).__name__, self._after)
            await asyncio.sleep(0.5)
            await patiently(self._subscribe)
            return []

    async def _fetch(self) -> Sequence[Delivery]:
        assert self._subscription is not None, "open comes first"
        deliveries = []
        for message in await self._subscription.fetch(_BATCH, timeout=_WAIT):
            where = message.metadata.sequence
            if where.consumer != self._delivered + 1:
                _log.warning("events: a message between %d and %d got lost; reading again", self._after, where.stream)
                await patiently(self._subscribe)
                break
            delivery = await self._read(message, int(where.stream))
            self._delivered, self._after, self._idle = where.consumer, max(self._after, where.stream), 0
            deliveries.append(delivery)
            message.data = b""  # only the address for the acknowledgement is needed from here on
            self._messages[delivery.sequence] = message
        return deliveries

    async def _check(self) -> None:
        try:
            await self._bus.jetstream.consumer_info(episodes.STREAM, self._durable)
        except NotFoundError:
            _log.warning("events: consumer %s is gone; reading on after %d", self._durable, self._after)
            await patiently(self._subscribe)
        except AWAY as error:
            _log.warning("events: %s", str(error) or type(error).__name__)

    async def _read(self, message: Msg, sequence: int) -> Delivery:
        episode = message.subject.rsplit(".", 1)[-1]
        try:
            payload = await self._bus.payload(message)
        except ObjectNotFoundError:
            _log.error("event %d: its payload is not in the object store any more", sequence)
            return Delivery(sequence, episode)
        try:
            event = episodes.decode(payload)
        except episodes.NewerSchemaError:
            return Delivery(sequence, episode, place=self._place_of_newer(payload), newer=True)
        except DecodeError:
            _log.error("message %d on %s is no event", sequence, message.subject)
            return Delivery(sequence, episode)
        where = wire.place(event, self._run_id)
        return Delivery(sequence, episode, where, wire.event(event, where) if where else None)

    def _place_of_newer(self, payload: bytes) -> Any:
        return wire.place(pb.TrajectoryEvent.FromString(payload), self._run_id)

    async def acknowledge(self, sequences: Sequence[int]) -> None:
        """Say that these messages are done with."""
        for sequence in sequences:
            message = self._messages.pop(sequence, None)
            if message is None:
                continue
            try:
                await message.ack()
            except AWAY as error:
                _log.warning("event %d not acknowledged: %s", sequence, str(error) or type(error).__name__)

    async def close(self) -> None:
        """Drop the consumer."""
        await patiently(self._delete_consumer)
