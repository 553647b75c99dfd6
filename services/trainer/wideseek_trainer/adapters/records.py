"""A NATS key-value bucket, as the trainer uses it.

Invariants: a server that is away is `Unavailable`, never a missing key; `patiently` outlasts it, for work that must
not be lost.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from nats.js.errors import KeyDeletedError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue
from wideseek_kit.bus import AWAY, Bus
from wideseek_kit.errors import Unavailable

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Records:
    """One bucket."""

    def __init__(self, bus: Bus, bucket: str, history: int = 1) -> None:
        """Use `bucket`, created when missing."""
        self._bus = bus
        self._name = bucket
        self._history = history

    async def get(self, key: str) -> bytes | None:
        """The value; None when there is none."""
        with _reaching(self._name):
            try:
                return (await (await self._bucket()).get(key)).value or b""
            except (KeyNotFoundError, KeyDeletedError):
                return None

    async def put(self, key: str, value: bytes) -> None:
        """Write, over an older value too."""
        with _reaching(self._name):
            await (await self._bucket()).put(key, value)

    async def create(self, key: str, value: bytes) -> bool:
        """Write unless there is a value; whether it was written."""
        with _reaching(self._name):
            try:
                await (await self._bucket()).create(key, value)
            except KeyWrongLastSequenceError:
                return False
            return True

    async def delete(self, key: str) -> None:
        """Remove the value, if any."""
        with _reaching(self._name):
            await (await self._bucket()).delete(key)

    async def keys(self) -> list[str]:
        """All keys that have a value."""
        with _reaching(self._name):
            try:
                return list(await (await self._bucket()).keys())
            except NoKeysError:
                return []

    async def _bucket(self) -> KeyValue:
        await self._bus.connected()
        return await self._bus.bucket(self._name, history=self._history)


@contextlib.contextmanager
def _reaching(bucket: str) -> Iterator[None]:
    try:
        yield
    except AWAY as error:
        fault = str(error) or type(error).__name__
        raise Unavailable(f"bucket {bucket}: {fault}", reason="NATS_UNAVAILABLE", bucket=bucket) from error


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The result of `call`, asked again for as long as what it needs is away."""
    delay = 0.2
    while True:
        try:
            return await call()
        except (Unavailable, *AWAY) as error:
            _log.warning("waits: %s", str(error) or type(error).__name__)
        await asyncio.sleep(delay)
        delay = min(2 * delay, 3.0)
