"""The health service, with streaming handlers as async generators like every other one here.

grpc's own servicer writes to the context instead, which the interceptors cannot carry.
Invariants: a watcher sees the current status at once and each change after it (changes in quick succession may be
seen as one); after `close` every status is NOT_SERVING for good, and the watchers' streams end, so that they do not
hold up a stop.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wideseek_kit.errors import NotFound

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """grpc.health.v1.Health."""

    def __init__(self) -> None:
        """Know no service yet."""
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def set(self, service: str, status: int) -> None:
        """Set the status of a service; without effect after `close`."""
        if self._closed or self._statuses.get(service) == status:
            return
        self._statuses[service] = status
        self._tell()

    def close(self) -> None:
        """Say NOT_SERVING for all, and end the watchers' streams."""
        self._closed = True
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        """The status of one service."""
        status = self._statuses.get(request.service)
        if status is None:
            raise NotFound(f"there is no service {request.service!r} here", service=request.service)
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
        """The statuses of all services."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """The status of one service, whenever it changes."""
        last: int | None = None
        while True:
            changed, closed = self._changed, self._closed
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            if closed:
                return
            await changed.wait()
