"""Errors over a real server: what a servicer raises is what the caller gets, and nothing more."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status
from wideseek_kit import errors
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import InvalidArgument, NotFound, ServiceError, from_status
from wideseek_kit.testing import eventually, grpc_server

SERVICE = "test.v1.Test"
KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServiceError) and kind.code
]


class Far:
    """A service with all four kinds of methods; each raises what it is told to, streams after two answers."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.ended: list[str] = []

    def register(self, server: aio.Server) -> None:
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self.unary_unary),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self.unary_stream),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self.stream_stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        return self.answer(request)

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return self.answer(b"".join([request async for request in requests]))

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            for part in (b"1", b"2"):
                yield part
            yield self.answer(request)
        finally:
            self.ended.append("unary_stream")

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
        yield self.answer(b"end")

    def answer(self, request: bytes) -> bytes:
        if self.error is not None:
            raise self.error
        return request


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
async def channel(far: Far) -> AsyncIterator[Any]:
    async with grpc_server(far.register, SERVICE) as target, open_channel(target) as opened:
        yield opened


async def call(channel: Any, method: str) -> list[bytes]:
    """Call one of the four methods; gives all answers."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    path = f"/{SERVICE}/{method}"
    with calling():
        match method:
            case "UnaryUnary":
                return [await channel.unary_unary(path)(b"x")]
            case "StreamUnary":
                return [await channel.stream_unary(path)(requests())]
            case "UnaryStream":
                stream = channel.unary_stream(path)(b"x")
            case _:
                stream = channel.stream_stream(path)(requests())
        return [part async for part in stream]


METHODS = ("UnaryUnary", "StreamUnary", "UnaryStream", "StreamStream")


@pytest.mark.parametrize("method", METHODS)
async def test_calls_without_errors_pass(channel: Any, method: str) -> None:
    answers = {
        "UnaryUnary": [b"x"],
        "StreamUnary": [b"12"],
        "UnaryStream": [b"1", b"2", b"x"],
        "StreamStream": [b"1", b"2", b"end"],
    }
    assert await call(channel, method) == answers[method]


def test_every_status_has_an_exception() -> None:
    assert {kind.code for kind in KINDS} == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in (ServiceError, InvalidArgument)])
async def test_an_error_arrives_as_itself(far: Far, channel: Any, kind: type[ServiceError], method: str) -> None:
    far.error = kind("turn 7 > 3 ü", reason="TURN_LIMIT", turn=7, limit=3)
    with pytest.raises(kind) as raised:
        await call(channel, method)
    assert type(raised.value) is kind
    assert (raised.value.message, str(raised.value)) == ("turn 7 > 3 ü", "turn 7 > 3 ü")
    assert (raised.value.reason, raised.value.facts) == ("TURN_LIMIT", {"turn": "7", "limit": "3"})


async def test_an_invalid_argument_keeps_its_field(far: Far, channel: Any) -> None:
    far.error = InvalidArgument("episode.max_turns", "0 < 1", limit=1)
    with pytest.raises(InvalidArgument) as raised:
        await call(channel, "UnaryUnary")
    assert raised.value.message == "episode.max_turns: 0 < 1"
    assert raised.value.facts == {"field": "episode.max_turns", "limit": "1"}
    assert raised.value.to_status() == far.error.to_status()


async def test_the_wire_has_exactly_one_error_info(far: Far, channel: Any) -> None:
    far.error = NotFound("no episode e1", reason="EPISODE_NOT_FOUND", episode="e1")
    with pytest.raises(aio.AioRpcError) as raised:
        await channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert raised.value.details() == "no episode e1"
    status = rpc_status.from_call(raised.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    (detail,) = status.details
    assert detail.Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == ("wideseek", "EPISODE_NOT_FOUND", {"episode": "e1"})


@pytest.mark.parametrize("method", METHODS)
async def test_an_unforeseen_exception_leaks_nothing(
    far: Far, channel: Any, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    far.error = KeyError("password=hunter2")
    with caplog.at_level(logging.ERROR), pytest.raises(errors.Internal) as raised:
        await call(channel, method)
    assert "hunter2" not in f"{raised.value.message}{raised.value.facts}{raised.value.__cause__}"
    assert raised.value.reason == "INTERNAL"
    assert caplog.text.count("Traceback (most recent call last)") == 1
    assert "hunter2" in caplog.text


async def test_an_error_of_a_service_further_down_keeps_its_reason(far: Far, channel: Any) -> None:
    far.error = NotFound("no page", reason="PAGE_NOT_FOUND", url="u")
    near = Far()
    with pytest.raises(aio.AioRpcError) as below:
        await channel.unary_unary(f"/{SERVICE}/UnaryUnary")(b"")
    near.error = below.value
    async with grpc_server(near.register, SERVICE) as target, open_channel(target) as upper:
        with pytest.raises(NotFound) as raised:
            await call(upper, "UnaryUnary")
    assert (raised.value.reason, raised.value.facts) == ("PAGE_NOT_FOUND", {"url": "u"})


@pytest.mark.parametrize("text", ["x" * 5_000, "x" * 100_000, "字" * 10_000])
async def test_a_huge_error_is_cut_and_not_lost(far: Far, channel: Any, text: str) -> None:
    far.error = NotFound(text, reason="PAGE_NOT_FOUND", first="short", url=text, last=text)
    for _ in range(20):  # gRPC refuses what is a little too large by chance
        with pytest.raises(NotFound) as raised:
            await call(channel, "UnaryUnary")
    assert raised.value.reason == "PAGE_NOT_FOUND"
    assert raised.value.facts["first"] == "short"
    assert set(raised.value.facts) == {"first", "url", "last"}
    assert len(raised.value.message.encode()) <= 1_003
    assert raised.value.message.endswith("…")


async def test_an_unknown_method_says_so(channel: Any) -> None:
    with pytest.raises(errors.Unimplemented), calling():
        await channel.unary_unary(f"/{SERVICE}/Nothing")(b"")


def test_a_status_of_another_maker_is_understood() -> None:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="R", metadata={"message": "m", "reason": "r", "self": "s"}))
    error = from_status(status_pb2.Status(code=5, message="gone", details=[detail]))
    assert isinstance(error, NotFound)
    assert (error.message, error.reason) == ("gone", "R")
    assert error.facts == {"message": "m", "reason": "r", "self": "s"}
    strange = from_status(status_pb2.Status(code=99, message="?"))
    assert (type(strange), strange.reason) == (errors.Unknown, "UNKNOWN")


async def test_a_caller_that_leaves_ends_the_stream_below(far: Far, channel: Any) -> None:
    stream = channel.unary_stream(f"/{SERVICE}/UnaryStream")(b"x")
    assert await stream.read() == b"1"
    stream.cancel()
    await eventually(lambda: far.ended == ["unary_stream"])
