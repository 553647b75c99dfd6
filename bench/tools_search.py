"""How fast the tools service takes pages in and searches them, beside tantivy called directly in the same run.

    python bench/tools_search.py [--passages 100000] [--corpora 1] [--seconds 5] [--rounds 5]

The service is a process of its own, filled and asked through gRPC; "direct" is tantivy in one thread of this process
with the same fields, words and queries. Passages have Zipf-distributed words. Prints one table; figures are medians
over the rounds with the least and the greatest.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from tantivy import Index
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import eventually
from wideseek_tools.adapters.schema import ANALYZER, build_analyzer, build_schema, document_of, query_of, words_of
from wideseek_tools.core.model import Page

_VOCABULARY = [f"w{number}" for number in range(50_000)]
_ZIPF = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(_VOCABULARY))))
_BATCH = 500


def corpus_of(number: int, corpora: int) -> str:
    """The corpus of a passage."""
    return f"corpus-{number % corpora:04d}"


def passages(count: int, corpora: int) -> Iterator[Page]:
    """Generated passages of 100 words, about 420 bytes."""
    rng = random.Random(7)
    for number in range(count):
        words = rng.choices(_VOCABULARY, cum_weights=_ZIPF, k=100)
        yield Page(corpus_of(number, corpora), f"https://a.test/{number}", " ".join(words[:4]), " ".join(words), "")


def queries(count: int, corpora: int) -> list[tuple[str, str]]:
    """(corpus, query) pairs; queries of 4 words, drawn like the passages' words."""
    rng = random.Random(8)
    return [
        (corpus_of(rng.randrange(corpora), corpora), " ".join(rng.choices(_VOCABULARY, cum_weights=_ZIPF, k=4)))
        for _ in range(count)
    ]


@contextlib.asynccontextmanager
async def service(directory: Path) -> AsyncIterator[tuple[str, int]]:
    """The service as a process; gives target and process id."""
    port_file = directory / "port"
    environment = {
        **os.environ,
        "WIDESEEK_TOOLS_PORT_FILE": str(port_file),
        "WIDESEEK_TOOLS_DATA_DIR": str(directory / "data"),
        "WIDESEEK_TOOLS_LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "wideseek_tools", env=environment)
    try:
        await eventually(lambda: port_file.exists() or process.returncode is not None, 30)
        yield f"127.0.0.1:{port_file.read_text()}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def ingest(target: str, pages: Sequence[Page]) -> tuple[int, float]:
    """Passages stored, and passages a second over the whole stream."""

    async def requests() -> AsyncIterator[corpus_pb.IngestPagesRequest]:
        for start in range(0, len(pages), _BATCH):
            yield corpus_pb.IngestPagesRequest(
                pages=[
                    corpus_pb.Page(corpus=page.corpus, url=page.url, title=page.title, text=page.text)
                    for page in pages[start : start + _BATCH]
                ]
            )

    async with open_channel(target) as channel:
        started = time.perf_counter()
        answer = await corpus_grpc.CorpusServiceStub(channel).IngestPages(requests())
        return answer.stored, answer.stored / (time.perf_counter() - started)


async def load(
    target: str, asked: Sequence[tuple[str, str]], in_flight: int, seconds: float
) -> tuple[float, list[float]]:
    """Searches a second through gRPC, and the sorted latencies in seconds."""
    latencies: list[float] = []
    endless = itertools.cycle(asked)
    async with open_channel(target) as channel:
        stub = tools_grpc.ToolsServiceStub(channel)
        end = time.perf_counter() + seconds

        async def caller() -> None:
            while (started := time.perf_counter()) < end:
                corpus, query = next(endless)
                answer = await stub.Search(pb.SearchRequest(corpus=corpus, queries=[pb.SearchQuery(query=query)]))
                if answer.results[0].HasField("error"):
                    raise RuntimeError(answer.results[0].error.message)
                latencies.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(in_flight)))
        return len(latencies) / (time.perf_counter() - started), sorted(latencies)


def direct_ingest(directory: Path, pages: Sequence[Page]) -> tuple[Index, float]:
    """The same documents written by tantivy alone, committed each 10,000 as the service does."""
    index = Index(build_schema(), path=str(directory))
    index.register_tokenizer(ANALYZER, build_analyzer())
    index.config_reader("manual")
    writer = index.writer(64 << 20, num_threads=1)
    started = time.perf_counter()
    for number, page in enumerate(pages, start=1):
        writer.add_document(document_of(page))
        if number % 10_000 == 0 or number == len(pages):
            writer.commit()
    rate = len(pages) / (time.perf_counter() - started)
    writer.wait_merging_threads()
    index.reload()
    return index, rate


def direct_search(index: Index, asked: Sequence[tuple[str, str]], filtered: bool, seconds: float) -> float:
    """Searches a second of tantivy in one thread, with the stored fields of the hits."""
    schema, analyzer, searcher = build_schema(), build_analyzer(), index.searcher()
    started = time.perf_counter()
    for done, (corpus, query) in enumerate(itertools.cycle(asked), start=1):
        wanted = query_of(schema, words_of(analyzer, query), corpus if filtered else None)
        for _, address in searcher.search(wanted, 3, count=False).hits:
            searcher.doc(address).get_first("text")
        if time.perf_counter() - started > seconds:
            return done / (time.perf_counter() - started)
    raise AssertionError("cycle ends only for no queries")


def memory(pid: int) -> tuple[float, float]:
    """Peak of the resident memory, and what of it is the process's own now, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak, own = (next(int(line.split()[1]) for line in lines if line.startswith(key)) for key in ("VmHWM", "RssAnon"))
    return peak / 1024, own / 1024


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """Median and range."""
    return f"{show(statistics.median(values)):>10}   {show(min(values))} – {show(max(values))}"


async def main(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    asked = queries(2_000, arguments.corpora)
    pages = list(passages(arguments.passages, arguments.corpora))
    size = sum(len(page.text) for page in pages)
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="wideseek-bench-") as scratch:
        directory = Path(scratch)
        async with service(directory) as (target, pid):
            stored, rate = await ingest(target, pages)
            rows.append(("ingest, gRPC, passages/s", f"{rate:>10,.0f}"))
            (directory / "direct").mkdir()
            index, rate = direct_ingest(directory / "direct", pages)
            rows.append(("ingest, tantivy direct, passages/s", f"{rate:>10,.0f}"))
            files = (directory / "data").rglob("*")
            on_disk = sum(file.stat().st_size for file in files if file.is_file())
            rows.append(("index / raw text, bytes", f"{on_disk / size:>10.2f}"))
            rounds: dict[str, list[float]] = {}
            for _ in range(arguments.rounds):
                for in_flight in (1, 64):
                    rate, latencies = await load(target, asked, in_flight, arguments.seconds)
                    rounds.setdefault(f"gRPC, {in_flight} in flight, searches/s", []).append(rate)
                    for name, share in (("p50", 0.5), ("p99", 0.99)):
                        at = latencies[int(share * (len(latencies) - 1))] * 1e3
                        rounds.setdefault(f"gRPC, {in_flight} in flight, {name} ms", []).append(at)
                rate = direct_search(index, asked, arguments.corpora > 1, arguments.seconds)
                rounds.setdefault("tantivy direct, one thread, searches/s", []).append(rate)
            rows += [
                (name, spread(values, "{:,.2f}".format if name.endswith("ms") else "{:,.0f}".format))
                for name, values in rounds.items()
            ]
            peak, anonymous = memory(pid)
            rows.append(("service's memory, MiB: peak with mapped files", f"{peak:>10,.0f}"))
            rows.append(("service's memory, MiB: its own, now", f"{anonymous:>10,.0f}"))
    print(f"{stored:,} passages, {size / 1e6:,.0f} MB of text, {arguments.corpora} corpora, {os.cpu_count()} CPUs")
    print(f"{'':<50}{'median':>10}   least – greatest of {arguments.rounds} rounds of {arguments.seconds} s")
    for name, figures in rows:
        print(f"{name:<50}{figures}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--corpora", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
