"""A suite of real processes for the tests of this folder: started once, gone afterwards."""

from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
import pytest_asyncio
from wideseek_atlas import Split
from wideseek_cli.home import Home
from wideseek_cli.lab.worlds import WorldSet, ingest
from wideseek_cli.suite.control import down, up
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.state import SuiteState
from wideseek_client import Client


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Where the suite keeps its files; afterwards nothing of it may run."""
    home = Home(tmp_path_factory.mktemp("suite"))
    yield home
    marked = [p.pid for p in psutil.process_iter(["cmdline"]) if str(home.root) in " ".join(p.info["cmdline"] or [])]
    assert not marked, f"still running: {marked}"


@pytest.fixture(scope="session")
def suite(home: Home) -> Iterator[SuiteState]:
    """The running suite with the seed policy."""
    state = up(home, SuiteOptions().resolved(), lambda _: None)
    yield state
    down(home)


@pytest_asyncio.fixture(loop_scope="function")
async def client(suite: SuiteState) -> AsyncIterator[Client]:
    """A client of the suite."""
    async with Client(suite.endpoints, patience=60) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="function")
async def worlds(client: Client) -> WorldSet:
    """Held-out worlds, in the suite's index (storing them twice changes nothing)."""
    drawn = WorldSet.draw(Split.HELDOUT, 12, 2)
    await ingest(client, [drawn])
    return drawn
