"""The NATS connection of a service: waited for at start, kept up, and never in the way of the work.

Invariants: a server that is away makes the service NotReady with the reason, not dead; publishing is idempotent by
message id; what exceeds the server's payload limit goes to the object store and travels by reference; an outbox keeps
the order of its messages, is bounded, and drops nothing while the process lives.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, ObjectStoreConfig, StorageType, StreamConfig
from nats.js.errors import APIError, BucketNotFoundError, NotFoundError
from nats.js.kv import KeyValue
from nats.js.object_store import ObjectStore

from wideseek_kit.errors import Unavailable
from wideseek_kit.serve import Readiness

_OBJECT = "Wideseek-Object"
_PAYLOADS = "payloads"
_log = logging.getLogger(__name__)

#: What a call raises while the server is away or restarting.
AWAY = (nats.errors.Error, APIError, asyncio.TimeoutError, OSError)


def heed_cancellation() -> None:
    """Raise `CancelledError` if the current task was asked to end and the request was lost.

    Requests of nats-py wait in `asyncio.wait_for`, which up to Python 3.11 gives the answer and forgets the
    cancellation when both come at once; a loop over such requests calls this, or it may never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Bus:
    """One connection with JetStream."""

    def __init__(self, url: str, name: str, readiness: Readiness | None = None) -> None:
        """Prepare; `open_bus` connects."""
        self._url = url
        self._name = name
        self._readiness = readiness
        self._client = Client()
        self._up = asyncio.Event()
        self._fault = "not connected yet"

    @property
    def client(self) -> Client:
        """The connection itself, for messages that are not stored."""
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream API of the connection."""
        return self._client.jetstream(timeout=5)

    async def connected(self, timeout: float = 2.0) -> None:  # noqa: ASYNC109 -- the bound is part of the question
        """Wait until the connection is up.

        Raises:
            Unavailable: it is not within `timeout` seconds (reason NATS_UNAVAILABLE).
        """
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise Unavailable(
                f"NATS at {self._url} is out of reach: {self._fault}", reason="NATS_UNAVAILABLE", url=self._url
            ) from None

    async def publish(self, subject: str, payload: bytes, message_id: str, headers: Mapping[str, str] = {}) -> int:  # noqa: B006 -- read only
        """Store one message; returns its stream sequence. Repeating it with the same id stores it once."""
        all_headers = {"Nats-Msg-Id": message_id, **headers}
        if len(payload) > self._client.max_payload - 4096:
            store = await self._payloads()
            await store.put(message_id, payload)
            all_headers[_OBJECT] = message_id
            payload = b""
        acknowledgement = await self.jetstream.publish(subject, payload, headers=all_headers)
        heed_cancellation()
        return acknowledgement.seq

    async def payload(self, message: Msg) -> bytes:
        """The payload of a message, fetched from the object store when it travelled by reference."""
        reference = (message.headers or {}).get(_OBJECT)
        if not reference:
            return message.data
        store = await self._payloads()
        return (await store.get(reference)).data or b""

    async def ensure_stream(self, config: StreamConfig) -> None:
        """Create the stream unless it is there."""
        try:
            await self.jetstream.stream_info(str(config.name))
        except NotFoundError:
            await self.jetstream.add_stream(config)

    async def bucket(self, name: str, *, ttl: float | None = None, history: int = 1) -> KeyValue:
        """A key-value bucket, created unless it is there. `ttl` is in seconds."""
        try:
            return await self.jetstream.key_value(name)
        except BucketNotFoundError:
            config = KeyValueConfig(bucket=name, history=history, ttl=ttl, storage=StorageType.FILE)
            return await self.jetstream.create_key_value(config)

    async def _payloads(self) -> ObjectStore:
        try:
            return await self.jetstream.object_store(_PAYLOADS)
        except NotFoundError:
            return await self.jetstream.create_object_store(_PAYLOADS, ObjectStoreConfig(storage=StorageType.FILE))

    async def _set(self, fault: str) -> None:
        self._fault = fault
        if fault:
            self._up.clear()
        else:
            self._up.set()
        if self._readiness is not None:
            await self._readiness.set("nats", f"{self._url}: {fault}" if fault else "")

    async def _connect(self, on_up: Callable[["Bus"], Awaitable[None]]) -> None:
        async def disconnected() -> None:
            await self._set("connection lost")

        async def reconnected() -> None:
            await self._set("")

        async def failed(error: Exception) -> None:
            _log.warning("nats: %s", str(error) or type(error).__name__)

        while True:
            try:
                self._client = await nats.connect(
                    self._url,
                    name=self._name,
                    connect_timeout=2,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.3,
                    allow_reconnect=True,
                    disconnected_cb=disconnected,
                    reconnected_cb=reconnected,
                    error_cb=failed,
                )
                await on_up(self)
                await self._set("")
                return
            except AWAY as error:
                await self._close()  # a half-open connection is given up before the next try
                await self._set(str(error) or type(error).__name__)
                await asyncio.sleep(0.5)
            except Exception as error:  # a defect must not end the task in silence: NotReady tells it, and it may pass
                _log.exception("nats: cannot set up the connection")
                await self._close()
                await self._set(repr(error))
                await asyncio.sleep(5)

    async def _close(self) -> None:
        with contextlib.suppress(*AWAY):  # closing what is already gone
            await self._client.close()


async def _nothing(_: Bus) -> None:
    return None


@contextlib.asynccontextmanager
async def open_bus(
    url: str,
    name: str,
    *,
    readiness: Readiness | None = None,
    on_up: Callable[[Bus], Awaitable[None]] = _nothing,
) -> AsyncIterator[Bus]:
    """A bus that connects in the background; `on_up` (streams and buckets to ensure) runs before it counts as up."""
    bus = Bus(url, name, readiness)
    await bus._set("not connected yet")
    connecting = asyncio.create_task(bus._connect(on_up))
    try:
        yield bus
    finally:
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
        await bus._close()


class Outbox:
    """An ordered, bounded queue of messages on their way to the bus; tried until each is stored."""

    def __init__(self, bus: Bus, size: int = 1024) -> None:
        """`size` messages may wait; then `put` waits too."""
        self._bus = bus
        self._queue: asyncio.Queue[tuple[str, bytes, str, dict[str, str]]] = asyncio.Queue(size)

    async def put(self, subject: str, payload: bytes, message_id: str, headers: dict[str, str]) -> None:
        """Hand over a message; waits while the outbox is full."""
        await self._queue.put((subject, payload, message_id, headers))

    async def flush(self) -> None:
        """Wait until all that was put is stored."""
        await self._queue.join()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            subject, payload, message_id, headers = await self._queue.get()
            delay = 0.1
            while True:
                try:
                    await self._bus.publish(subject, payload, message_id, headers)
                    break
                except AWAY as error:
                    _log.warning("%s waits for NATS: %s", message_id, str(error) or type(error).__name__)
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, 2.0)
            self._queue.task_done()
