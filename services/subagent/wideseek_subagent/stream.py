"""Turns work that reports by callback into an async generator, which a streaming handler must be.

Invariant: the work never outlives the generator, nor the call; what it raises, the generator raises.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from grpc import aio

T = TypeVar("T")


async def streamed(
    work: Callable[[Callable[[T], None]], Awaitable[None]], context: aio.ServicerContext[Any, Any]
) -> AsyncIterator[T]:
    """What `work` emits, until it ends. A call that ends first cancels it. The work bounds what it emits."""
    queue: asyncio.Queue[T | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    def ended(_: object) -> None:
        task.cancel()

    task = asyncio.create_task(run())
    context.add_done_callback(ended)  # type: ignore[arg-type]  # the stub asks for a class where grpc takes any callable
    try:
        while (item := await queue.get()) is not None:
            yield item
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # raised above, or of no interest to a caller that is gone
