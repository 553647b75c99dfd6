"""For tests: a real NATS server, servers in this process on unix sockets, free ports. Nothing is left behind."""

import asyncio
import contextlib
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from grpc import aio

from wideseek_kit.nats_server import nats_binary
from wideseek_kit.serve import Readiness, running


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class NatsServer:
    """A JetStream server of the test's own; its files outlive `stop`, so that it can come back."""

    def __init__(self, directory: Path) -> None:
        """Keep state below `directory`; `start` runs it."""
        self._directory = directory
        self._port = free_port()
        self._monitor = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Run until it answers."""
        arguments = [nats_binary(), "-js", "-a", "127.0.0.1", "-p", str(self._port), "-m", str(self._monitor)]
        self._process = subprocess.Popen(
            [*arguments, "-sd", str(self._directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        health = f"http://127.0.0.1:{self._monitor}/healthz?js-enabled-only=true"
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(health, timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """End it; its files stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@contextlib.contextmanager
def nats_server() -> Iterator[NatsServer]:
    """A running server with an empty store."""
    with tempfile.TemporaryDirectory(prefix="wideseek-nats-") as directory:
        server = NatsServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def grpc_server(register: Callable[[aio.Server], None], *service_names: str) -> AsyncIterator[str]:
    """A server of this process, with the interceptors of a real one; gives the target to connect to."""
    with tempfile.TemporaryDirectory(prefix="wideseek-grpc-") as directory:
        target = f"unix:{directory}/s"
        async with running(register, target, readiness=Readiness(service_names), service_names=service_names):
            yield target


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: it does not within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for belongs to the code under test
            await asyncio.sleep(0.01)
