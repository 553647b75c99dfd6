"""One way to run a gRPC server: from start to drained stop.

Invariants: the health service tells readiness by the service's full name and liveness by the empty name; after
SIGTERM or SIGINT the server says NOT_SERVING, waits the notice, lets calls in flight end within the grace, and only
then are the resources under it closed (by the caller's own context managers).
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from wideseek_kit.errors import ErrorInterceptor
from wideseek_kit.health import NOT_SERVING, SERVING, Health
from wideseek_kit.settings import ServiceSettings

_MAX_MESSAGE = 32 << 20
_CLEANUP_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Readiness:
    """The conditions that must hold before a service is ready, each with the reason when it does not."""

    def __init__(self, service_names: Sequence[str] = ()) -> None:
        """Start ready; conditions are added by `set`."""
        self._names = tuple(service_names)
        self._faults: dict[str, str] = {}
        self._health = Health()

    @property
    def servicer(self) -> Health:
        """The health servicer to register."""
        return self._health

    @property
    def faults(self) -> dict[str, str]:
        """Condition to reason, for those that do not hold."""
        return dict(self._faults)

    async def set(self, condition: str, fault: str = "") -> None:
        """Say that `condition` holds, or with `fault` why it does not."""
        before = dict(self._faults)
        if fault:
            self._faults[condition] = fault
        else:
            self._faults.pop(condition, None)
        if self._faults != before:
            _log.log(logging.WARNING if fault else logging.INFO, "%s: %s", condition, fault or "ok")
        await self.publish()

    async def publish(self) -> None:
        """Tell the health service."""
        self._health.set("", SERVING)
        for name in self._names:
            self._health.set(name, NOT_SERVING if self._faults else SERVING)

    async def drain(self) -> None:
        """Say NOT_SERVING for good."""
        self._health.close()


@contextlib.asynccontextmanager
async def running(
    register: Callable[[aio.Server], None],
    address: str,
    *,
    readiness: Readiness,
    service_names: Sequence[str],
    grace: float = 0.0,
) -> AsyncIterator[int]:
    """A server that runs while the context lasts; gives the bound port (0 for a unix socket).

    Raises:
        OSError: the address cannot be bound.
    """
    errors = ErrorInterceptor()
    server = aio.server(
        # Telemetry is the outermost, or a failed call is recorded as a success.
        interceptors=[aio_server_interceptor(), errors],
        options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            ("grpc.so_reuseport", 0),  # a taken port is an error, not a shared one
            # The suite's own clients ping every 30 s on a quiet stream; unasked, a server closes on them for it.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    health_pb2_grpc.add_HealthServicer_to_server(readiness.servicer, server)
    register(server)
    reflection.enable_server_reflection([*service_names, reflection.SERVICE_NAME, "grpc.health.v1.Health"], server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    await server.start()
    await readiness.publish()
    try:
        yield port
    finally:
        await server.stop(grace)
        try:
            await asyncio.wait_for(errors.idle(), _CLEANUP_SECONDS)
        except TimeoutError:
            _log.error("calls still hold on %g seconds after they were cancelled", _CLEANUP_SECONDS)


async def serve(
    register: Callable[[aio.Server], None],
    settings: ServiceSettings,
    *,
    readiness: Readiness,
    service_names: Sequence[str],
    on_drain: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_drain` runs when the signal comes, before the notice."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with running(
        register, settings.listen, readiness=readiness, service_names=service_names, grace=settings.drain_grace
    ) as port:
        _log.info("serving on %s (port %d)", settings.listen, port)
        if settings.port_file:
            write_port_file(settings.port_file, port)
        await stop.wait()
        _log.info("draining")
        await readiness.drain()
        on_drain()
        await asyncio.sleep(settings.drain_notice)
    _log.info("stopped")


def write_port_file(name: str, port: int) -> None:
    """Write a bound port to a file, so that a reader sees all of it or nothing."""
    path = Path(name)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(str(port))
    scratch.replace(path)
