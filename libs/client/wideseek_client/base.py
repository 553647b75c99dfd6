"""What all parts of the client stand on: channels on demand, and patience with a service that is away.

Invariant: only calls that may be repeated are tried again: reads, and writes that carry an id of their own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

from grpc import aio
from wideseek_kit.channels import calling, channel
from wideseek_kit.errors import Cancelled, ServiceError, Unavailable

from wideseek_client.endpoints import Endpoints

T = TypeVar("T")
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


class Base:
    """Owner of the channels."""

    def __init__(self, endpoints: Endpoints, *, patience: float = 10.0) -> None:
        """Connect to nothing yet.

        Args:
            endpoints: where the services are.
            patience: seconds for which a call that may be repeated is, while its service is away.
        """
        self._endpoints = endpoints
        self._patience = patience
        self._channels: dict[str, aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        for opened in self._channels.values():
            await opened.close()
        self._channels.clear()

    def channel(self, service: str) -> aio.Channel:
        """The channel to `service` ("lead", "trainer", "tools", "inference" or "weights"), opened on first use.

        Raises:
            MissingEndpointError: its address was not given.
        """
        if service not in self._channels:
            self._channels[service] = channel(self._endpoints.of(service))
        return self._channels[service]

    async def _repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        give_up = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                with calling():
                    return await call()
            except Unavailable:
                if time.monotonic() + pause > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _resume(self, stream: Callable[[], AsyncIterator[T]]) -> AsyncIterator[T]:
        """All messages of `stream`, opened anew where it broke off; the caller stops at the terminal one.

        Patience starts when the stream breaks: one that was quiet for long is not given up for it.
        """
        broken_since = 0.0
        pause = _FIRST_PAUSE
        while True:
            fault: ServiceError = Unavailable("the stream ended without a terminal message", reason="STREAM_BROKEN")
            try:
                with calling():
                    async for message in stream():
                        broken_since, pause = 0.0, _FIRST_PAUSE
                        yield message
            except (Unavailable, Cancelled) as error:  # a server that stops cancels its streams
                fault = error
            broken_since = broken_since or time.monotonic()
            if time.monotonic() + pause > broken_since + self._patience:
                raise fault
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
