"""Builds the service from its settings and serves it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grpc import aio
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_kit.entry import StartError
from wideseek_kit.serve import Readiness, serve

from wideseek_tools.adapters.local_index import LocalIndex, UnusableIndexError, open_index
from wideseek_tools.core.desk import Defaults, Desk
from wideseek_tools.servicer import CorpusServicer, ToolsServicer
from wideseek_tools.settings import Settings

SERVICE_NAMES = ("wideseek.tools.v1.ToolsService", "wideseek.tools.v1.CorpusService")


def register(server: aio.Server, index: LocalIndex, settings: Settings) -> None:
    """Add both services to `server`."""
    desk = Desk(index, index, Defaults(settings.default_count, settings.default_max_chars))
    tools_grpc.add_ToolsServiceServicer_to_server(ToolsServicer(desk), server)
    corpus_grpc.add_CorpusServiceServicer_to_server(CorpusServicer(index, settings.max_page_chars), server)


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    with _data_directory(settings.data_dir) as directory:
        try:
            async with open_index(directory, settings.search_threads) as index:
                await serve(
                    lambda server: register(server, index, settings),
                    settings,
                    readiness=Readiness(SERVICE_NAMES),
                    service_names=SERVICE_NAMES,
                )
        except UnusableIndexError as error:
            raise StartError(f"WIDESEEK_TOOLS_DATA_DIR: {error}") from error


@contextlib.contextmanager
def _data_directory(configured: str) -> Iterator[Path]:
    if not configured:
        with tempfile.TemporaryDirectory(prefix="wideseek-tools-") as scratch:
            yield Path(scratch)
        return
    directory = Path(configured) / "index"
    directory.mkdir(parents=True, exist_ok=True)
    yield directory
