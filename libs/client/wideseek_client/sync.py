"""The client for code without an event loop.

Invariants: it has the methods of `Client`, with the same parameters; its loop runs in a thread of its own, which ends
with `close`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from wideseek_client.client import Client
from wideseek_client.endpoints import Endpoints

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wideseek-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C in the caller's thread ends the call too
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _blocking(method: Callable[Concatenate[Client, P], Awaitable[T]]) -> "Callable[Concatenate[SyncClient, P], T]":
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def work() -> T:
            return await method(self._client, *args, **kwargs)

        return self._loop.run(work())

    call.__doc__, call.__name__ = method.__doc__, method.__name__
    return call


def _iterating(
    method: Callable[Concatenate[Client, P], AsyncIterator[T]],
) -> "Callable[Concatenate[SyncClient, P], Iterator[T]]":
    def call(self: "SyncClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        stream = method(self._client, *args, **kwargs)

        async def end() -> None:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

        try:
            while message := self._loop.run(_one(stream)):
                yield message[0]
        finally:
            self._loop.run(end())

    call.__doc__, call.__name__ = method.__doc__, method.__name__
    return call


async def _one(stream: AsyncIterator[T]) -> tuple[T, ...]:
    try:
        return (await anext(stream),)
    except StopAsyncIteration:
        return ()


class SyncClient:
    """`Client` without asyncio: the same methods, blocking; the watches are plain iterators."""

    def __init__(self, endpoints: Endpoints, *, patience: float = 10.0) -> None:
        """Connect to nothing yet; the parameters are those of `Client`."""
        self._loop = _Loop()
        self._client = Client(endpoints, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread."""
        self._loop.run(self._client.close())
        self._loop.close()

    ask = _blocking(Client.ask)
    create_episode = _blocking(Client.create_episode)
    get_episode = _blocking(Client.get_episode)
    list_episodes = _blocking(Client.list_episodes)
    cancel_episode = _blocking(Client.cancel_episode)
    wait_episode = _blocking(Client.wait_episode)
    watch_episode = _iterating(Client.watch_episode)
    create_training_run = _blocking(Client.create_training_run)
    get_training_run = _blocking(Client.get_training_run)
    list_training_runs = _blocking(Client.list_training_runs)
    cancel_training_run = _blocking(Client.cancel_training_run)
    watch_training_run = _iterating(Client.watch_training_run)
    list_policies = _blocking(Client.list_policies)
    get_policy = _blocking(Client.get_policy)
    promote_policy = _blocking(Client.promote_policy)
    ingest_pages = _blocking(Client.ingest_pages)
    list_corpora = _blocking(Client.list_corpora)
    list_models = _blocking(Client.list_models)
    get_model = _blocking(Client.get_model)
    get_weight_state = _blocking(Client.get_weight_state)
    is_ready = _blocking(Client.is_ready)
