"""Client channels: every call between services goes through one of these.

Invariants: calls spread over all addresses of the name; a call that never reached a server is tried again; failures
surface as `ServiceError`s with the server's reason.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from grpc import aio
from opentelemetry.instrumentation.grpc import aio_client_interceptors

from wideseek_kit.errors import Cancelled, from_rpc_error

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


class _Cancelling(aio.UnaryUnaryClientInterceptor):
    """Hands the cancellation of a unary call on to the call: the telemetry interceptor around it only stops waiting."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(client_call_details, request)
        try:
            await call.code()
        except asyncio.CancelledError:
            call.cancel()
            raise
        return call


def channel(target: str) -> aio.Channel:
    """A channel to `target` (host:port, dns:///name:port or unix:PATH). Close it after use."""
    return aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.max_receive_message_length", 32 << 20),
            ("grpc.max_send_message_length", 32 << 20),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.enable_http_proxy", 0),
        ],
        interceptors=[*aio_client_interceptors(), _Cancelling()],
    )


@contextlib.asynccontextmanager
async def open_channel(target: str) -> AsyncIterator[aio.Channel]:
    """A channel that is closed at the end of the context."""
    opened = channel(target)
    try:
        yield opened
    finally:
        await opened.close()


@contextlib.contextmanager
def calling() -> Iterator[None]:
    """Turn a failed call inside the context into the `ServiceError` that it stands for."""
    try:
        yield
    except aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # grpc raises the same when the server ends a call as CANCELLED; nobody has cancelled this task.
        raise Cancelled("the server cancelled the call") from error
