"""The bus against a real NATS server that comes, goes and returns."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from nats.js.api import StreamConfig
from wideseek_kit.bus import Bus, Outbox, open_bus
from wideseek_kit.errors import Unavailable
from wideseek_kit.serve import Readiness
from wideseek_kit.testing import NatsServer, eventually, nats_server

STREAM = StreamConfig(name="T", subjects=["t.>"])


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with nats_server() as running:
        yield running


async def ensure(bus: Bus) -> None:
    await bus.ensure_stream(STREAM)


@contextlib.asynccontextmanager
async def connected(server: NatsServer, readiness: Readiness | None = None) -> AsyncIterator[Bus]:
    async with open_bus(server.url, "test", readiness=readiness, on_up=ensure) as bus:
        await bus.connected(10)
        yield bus


@contextlib.asynccontextmanager
async def sending(bus: Bus, size: int = 1024) -> AsyncIterator[Outbox]:
    outbox = Outbox(bus, size)
    task = asyncio.create_task(outbox.run())
    try:
        yield outbox
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def stored(bus: Bus) -> list[bytes]:
    subscription = await bus.jetstream.subscribe("t.>", ordered_consumer=True)
    count = (await bus.jetstream.stream_info("T")).state.messages
    messages = [await subscription.next_msg(5) for _ in range(count)]
    await subscription.unsubscribe()
    return [await bus.payload(message) for message in messages]


async def test_a_message_is_stored_once(server: NatsServer) -> None:
    async with connected(server) as bus:
        first = await bus.publish("t.a", b"one", "id-1")
        assert await bus.publish("t.a", b"one", "id-1") == first
        assert await bus.publish("t.a", b"two", "id-2") == first + 1
        assert await stored(bus) == [b"one", b"two"]


async def test_what_is_too_large_travels_by_reference(server: NatsServer) -> None:
    large = bytes(range(256)) * 12_000
    async with connected(server) as bus:
        await bus.publish("t.a", b"small", "id-1", {"traceparent": "00-x"})
        await bus.publish("t.a", large, "id-2", {"traceparent": "00-y"})
        assert await stored(bus) == [b"small", large]
        message = await bus.jetstream.get_msg("T", 2)
        assert message.data in (b"", None)
        assert message.headers is not None
        assert message.headers["traceparent"] == "00-y"


async def test_streams_and_buckets_are_made_once(server: NatsServer) -> None:
    async with connected(server) as bus:
        await bus.ensure_stream(STREAM)
        first = await bus.bucket("b", history=4)
        await first.put("k", b"v")
        again = await bus.bucket("b", history=4)
        assert (await again.get("k")).value == b"v"


async def test_a_server_that_is_away_at_start_is_waited_for(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.stop()
    readiness = Readiness(["t.T"])
    with caplog.at_level(logging.INFO):
        async with open_bus(server.url, "test", readiness=readiness, on_up=ensure) as bus:
            with pytest.raises(Unavailable, match=server.url) as away:
                await bus.connected(0.3)
            assert (away.value.reason, away.value.facts) == ("NATS_UNAVAILABLE", {"url": server.url})
            assert server.url in readiness.faults["nats"]
            await asyncio.to_thread(server.start)
            await bus.connected(10)
            assert readiness.faults == {}
            assert await bus.publish("t.a", b"x", "id") == 1


async def test_a_defect_at_set_up_is_told(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    async def defect(_: Bus) -> None:
        raise TypeError("unforeseen")

    readiness = Readiness(["t.T"])
    async with open_bus(server.url, "test", readiness=readiness, on_up=defect) as bus:
        await eventually(lambda: "unforeseen" in readiness.faults.get("nats", ""))
        with pytest.raises(Unavailable, match="unforeseen"):
            await bus.connected(0.1)
    assert "Traceback" in caplog.text


async def test_the_outbox_keeps_order_over_a_restart(server: NatsServer) -> None:
    readiness = Readiness(["t.T"])
    async with connected(server, readiness) as bus, sending(bus) as outbox:
        payloads = [str(number).encode() for number in range(60)]
        for number, payload in enumerate(payloads):
            if number == 20:
                await outbox.flush()
                await asyncio.to_thread(server.stop)
                await eventually(lambda: "nats" in readiness.faults)
            await outbox.put("t.a", payload, f"id-{number}", {})
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(outbox.flush(), 30)
        await bus.connected(10)
        assert readiness.faults == {}
        assert await stored(bus) == payloads


async def test_a_full_outbox_waits(server: NatsServer) -> None:
    async with connected(server) as bus:
        outbox = Outbox(bus, 2)
        for number in range(2):
            await outbox.put("t.a", b"x", f"id-{number}", {})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outbox.put("t.a", b"x", "id-2", {}), 0.1)
        async with sending(bus):
            pass
        task = asyncio.create_task(outbox.run())
        await asyncio.wait_for(outbox.put("t.a", b"y", "id-3", {}), 5)
        await asyncio.wait_for(outbox.flush(), 5)
        task.cancel()
        assert await stored(bus) == [b"x", b"x", b"y"]
