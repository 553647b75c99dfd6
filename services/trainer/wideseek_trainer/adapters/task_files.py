"""Task sets by fsspec URI."""

import asyncio

import fsspec

from wideseek_trainer.core.errors import TaskSetError
from wideseek_trainer.core.tasks import TaskSet, parse_task_set

_MOST_BYTES = 1 << 30


async def read_task_set(uri: str) -> TaskSet:
    """Read and check a task set.

    Raises:
        TaskSetError: it cannot be opened, is too large, or a line cannot be used.
    """
    return await asyncio.to_thread(_read, uri)


def _read(uri: str) -> TaskSet:
    try:
        with fsspec.open(uri, "rb") as source:
            data: bytes = source.read(_MOST_BYTES + 1)
    except (OSError, ValueError, ImportError) as error:
        raise TaskSetError(f"{uri}: {error}", file=uri) from error
    if len(data) > _MOST_BYTES:
        raise TaskSetError(f"{uri}: larger than {_MOST_BYTES} bytes", file=uri, most_bytes=_MOST_BYTES)
    return parse_task_set(data, uri)
