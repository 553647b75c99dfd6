"""Start, readiness and drain of a real server."""

import asyncio
import contextlib
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import NotFound, Unavailable
from wideseek_kit.serve import Readiness, running
from wideseek_kit.testing import eventually, grpc_server

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

#: A server whose stream lasts half a second, so that a signal can come in its middle.
PROGRAM = textwrap.dedent("""
    import asyncio, sys
    import grpc
    from wideseek_kit.serve import Readiness, serve
    from wideseek_kit.settings import ServiceSettings

    async def slow(request, context):
        for number in range(10):
            yield str(number).encode()
            await asyncio.sleep(0.05)

    async def forever(request, context):
        try:
            yield b"started"
            await asyncio.sleep(3600)
        finally:
            print("released", flush=True)

    def register(server):
        kind = grpc.unary_stream_rpc_method_handler
        methods = {"Slow": kind(slow), "Forever": kind(forever)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))

    async def main():
        settings = ServiceSettings(port_file=sys.argv[1], drain_grace=float(sys.argv[2]), drain_notice=0.2)
        try:
            await serve(
                register, settings, readiness=Readiness(["t.T"]), service_names=["t.T"],
                on_drain=lambda: print("draining", flush=True),
            )
        finally:
            print("closed", flush=True)

    asyncio.run(main())
""")


@contextlib.asynccontextmanager
async def server_process(directory: Path, grace: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    port_file = directory / "port"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, port_file, str(grace), stdout=asyncio.subprocess.PIPE
    )
    try:
        await eventually(lambda: port_file.exists() or process.returncode is not None, 30)
        yield process, f"127.0.0.1:{port_file.read_text()}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def check(channel: aio.Channel, service: str) -> Any:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    async with server_process(tmp_path, 20) as (process, target), open_channel(target) as channel:
        caller: Any = channel
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="t.T"))
        assert (await watch.read()).status == SERVING
        stream = caller.unary_stream("/t.T/Slow")(b"")
        assert await stream.read() == b"0"
        process.send_signal(number)
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is aio.EOF
        assert [part async for part in stream] == [str(part).encode() for part in range(1, 10)]
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, out.split()) == (0, [b"draining", b"closed"])


async def test_calls_that_outlast_the_grace_are_cut_and_their_parts_released(tmp_path: Path) -> None:
    async with server_process(tmp_path, 0.3) as (process, target), open_channel(target) as channel:
        caller: Any = channel
        stream = caller.unary_stream("/t.T/Forever")(b"")
        assert await stream.read() == b"started"
        process.send_signal(signal.SIGTERM)
        with pytest.raises((aio.AioRpcError, asyncio.CancelledError)):
            await stream.read()
        out, _ = await asyncio.wait_for(process.communicate(), 10)
        assert (process.returncode, out.split()) == (0, [b"draining", b"released", b"closed"])


async def test_readiness_is_told_by_name_and_liveness_always() -> None:
    readiness = Readiness(["t.T"])
    await readiness.set("nats", "nats://x: connection refused")
    async with (
        running(lambda _: None, "127.0.0.1:0", readiness=readiness, service_names=["t.T"]) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        assert (await check(channel, "")).status == SERVING
        assert (await check(channel, "t.T")).status == NOT_SERVING
        await readiness.set("weights", "version 3 is behind 4")
        assert readiness.faults == {"nats": "nats://x: connection refused", "weights": "version 3 is behind 4"}
        await readiness.set("nats")
        assert (await check(channel, "t.T")).status == NOT_SERVING
        await readiness.set("weights")
        assert (await check(channel, "t.T")).status == SERVING
        with pytest.raises(NotFound, match=r"t\.Other"), calling():
            await check(channel, "t.Other")
        listed = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
        assert {name: entry.status for name, entry in listed.statuses.items()} == {"": SERVING, "t.T": SERVING}


async def test_a_watcher_sees_each_change_until_the_drain() -> None:
    readiness = Readiness(["t.T"])
    async with (
        running(lambda _: None, "127.0.0.1:0", readiness=readiness, service_names=["t.T"]) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="t.T"))
        stranger = stub.Watch(health_pb2.HealthCheckRequest(service="t.Other"))
        assert (await watch.read()).status == SERVING
        assert (await stranger.read()).status == UNKNOWN
        await readiness.set("nats", "away")
        assert (await watch.read()).status == NOT_SERVING
        await readiness.set("nats")
        assert (await watch.read()).status == SERVING
        await readiness.drain()
        assert (await watch.read()).status == NOT_SERVING
        await readiness.set("nats", "away")
        await readiness.set("nats")
        assert [answer async for answer in watch] == []
        assert [answer async for answer in stranger] == []
        assert (await check(channel, "t.T")).status == NOT_SERVING


async def test_reflection_tells_the_services() -> None:
    async with grpc_server(lambda _: None, "t.T") as target, open_channel(target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert names == {"t.T", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        call.cancel()


async def test_a_taken_port_is_an_error() -> None:
    readiness = Readiness()
    async with running(lambda _: None, "127.0.0.1:0", readiness=readiness, service_names=[]) as port:
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            async with running(lambda _: None, f"127.0.0.1:{port}", readiness=readiness, service_names=[]):
                pass


async def test_a_call_is_tried_again_when_no_server_took_it() -> None:
    calls = []

    async def flaky(request: bytes, context: Any) -> bytes:
        calls.append(request)
        if len(calls) < 3:
            raise Unavailable("not yet")
        return b"done"

    def register(server: aio.Server) -> None:
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Flaky": grpc.unary_unary_rpc_method_handler(flaky)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))

    async with grpc_server(register, "t.T") as target, open_channel(target) as channel:
        caller: Any = channel
        assert await caller.unary_unary("/t.T/Flaky")(b"x") == b"done"
    assert calls == [b"x"] * 3
