"""The service as a process of its own: start, stop, and what a wrong setting says."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import eventually


async def start(**settings: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, **{f"WIDESEEK_TOOLS_{name.upper()}": value for name, value in settings.items()}}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wideseek_tools", env=environment, stderr=asyncio.subprocess.PIPE
    )


@contextlib.asynccontextmanager
async def running(directory: Path, **settings: str) -> AsyncIterator[str]:
    port_file = directory / "port"
    port_file.unlink(missing_ok=True)
    process = await start(port_file=str(port_file), **settings)
    try:
        await eventually(lambda: port_file.exists() or process.returncode is not None, 30)
        yield f"127.0.0.1:{port_file.read_text()}"
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, log.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def put_and_find(target: str, url: str) -> list[str]:
    async def pages() -> AsyncIterator[corpus_pb.IngestPagesRequest]:
        yield corpus_pb.IngestPagesRequest(pages=[corpus_pb.Page(url=url, title="Otava", text="river")])

    async with open_channel(target) as channel:
        await corpus_grpc.CorpusServiceStub(channel).IngestPages(pages())
        request = pb.SearchRequest(queries=[pb.SearchQuery(query="otava", count=9)])
        found = await tools_grpc.ToolsServiceStub(channel).Search(request)
        return sorted(hit.url for hit in found.results[0].hits)


async def test_pages_outlive_the_process(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    async with running(tmp_path, data_dir=data) as target:
        assert await put_and_find(target, "a") == ["a"]
    async with running(tmp_path, data_dir=data) as target:
        assert await put_and_find(target, "b") == ["a", "b"]


async def test_without_a_directory_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    async with running(tmp_path) as target:
        assert await put_and_find(target, "a") == ["a"]
        assert list(scratch.iterdir())
    assert not list(scratch.iterdir())


async def test_a_damaged_index_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "meta.json").write_text("{")
    process = await start(data_dir=str(tmp_path))
    _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    last = log.decode().strip().splitlines()[-1]
    assert last.startswith(f"tools: WIDESEEK_TOOLS_DATA_DIR: {tmp_path}/index")


async def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    process = await start(default_count="51")
    _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert "WIDESEEK_TOOLS_DEFAULT_COUNT='51'" in log.decode()
