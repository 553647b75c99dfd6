import asyncio
import random
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wideseek_kit.errors import FailedPrecondition
from wideseek_tools.adapters.local_index import LocalIndex, UnusableIndexError, open_index
from wideseek_tools.adapters.schema import build_analyzer, build_schema, query_of, words_of
from wideseek_tools.core.faults import Fault
from wideseek_tools.core.model import Corpus, Page


@pytest.fixture
async def index(tmp_path: Path) -> AsyncIterator[LocalIndex]:
    async with open_index(tmp_path, 2) as opened:
        yield opened


def page(url: str, title: str, text: str, corpus: str = "c", snippet: str = "") -> Page:
    return Page(corpus, url, title, text, snippet)


async def urls(index: LocalIndex, query: str, corpus: str = "c", count: int = 3) -> list[str]:
    return [hit.url for hit in (await index.search(corpus, query, count)).hits]


async def test_the_same_name_in_200_corpora(index: LocalIndex) -> None:
    """Every corpus knows the same names, with pages that repeat a name more often than the name's own page does."""
    rng = random.Random(3)
    names = [f"{a}{b}" for a in ("Ve", "Lo", "Ka", "Mi", "Su") for b in ("ra", "ndo", "lis", "tep")]
    pages = []
    for number in range(200):
        for name in names:
            corpus, other = f"world-{number:03d}", rng.choice(names)
            facts = f"{name} is a town. Its river is {other}. Its population is {rng.randrange(10**6)}."
            pages += [
                page(f"{name}", name, facts, corpus),
                page(f"{name}_Museum", f"{name} Museum", f"The museum of {name} shows {name} and {name}.", corpus),
                page(f"{name}_legend", f"Legend of {name}", f"In {name} they tell of {other}. {name}!", corpus),
            ]
        pages.append(page("list", "Towns", f"The towns are {', '.join(names)}.", corpus))
    rng.shuffle(pages)
    await index.put(pages)
    for number in range(0, 200, 20):
        corpus = f"world-{number:03d}"
        for name in names:
            assert (await urls(index, name, corpus))[0] == name
            assert (await urls(index, f"population of {name}", corpus))[0] == name
            assert (await urls(index, f"{name} museum", corpus))[0] == f"{name}_Museum"
            shown = await index.read(corpus, name)
            population = shown.text.rsplit(" ", 1)[1]
            assert population in (await index.search(corpus, name, 1)).hits[0].snippet


async def test_a_page_replaces_the_one_before_it(index: LocalIndex) -> None:
    await index.put([page("https://a.test/x", "Old", "granite"), page("https://a.test/x", "Newer", "basalt")])
    assert await urls(index, "granite") == []
    await index.put([page("https://a.test/x/#top", "New", "marble")])
    assert await urls(index, "basalt") == []
    assert await urls(index, "marble") == ["https://a.test/x/#top"]
    assert (await index.read("c", "HTTPS://A.test/x")).title == "New"
    assert await index.corpora("", 10) == [Corpus("c", 1)]


async def test_corpora_are_listed_by_name_with_their_pages(index: LocalIndex) -> None:
    names = [f"k{i:02d}" for i in range(15)]
    await index.put([page(f"u{i}", "", "text", name) for n, name in enumerate(names) for i in range(n + 1)])
    first = await index.corpora("", 10)
    assert first == [Corpus(name, n + 1) for n, name in enumerate(names[:10])]
    assert [corpus.name for corpus in await index.corpora(first[-1].name, 10)] == names[10:]


@pytest.mark.parametrize("query", ["北京大学", "京大", "学", "founded 北京", "ﾌﾟ北京"])
async def test_chinese_is_found(index: LocalIndex, query: str) -> None:
    await index.put(
        [
            page("pku", "北京大学", "北京大学位于中国北京, founded 1898."),
            page("other", "清华园", "一些别的内容"),
            page("kyoto", "京都", "日本の都市"),
        ]
    )
    assert (await urls(index, query))[0] == "pku"


async def test_accents_and_case_do_not_matter(index: LocalIndex) -> None:
    await index.put([page("u", "São Tomé", "An island.")])
    assert await urls(index, "SAO tome") == ["u"]


async def test_a_snippet_is_the_pages_own_or_a_window(index: LocalIndex) -> None:
    await index.put(
        [
            page("own", "Own", "the word zircon stands here", snippet="said elsewhere: jade"),
            page("window", "Window", "filler " * 200 + "a zircon deposit " + "filler " * 200),
        ]
    )
    snippets = {hit.url: hit.snippet for hit in (await index.search("c", "zircon", 3)).hits}
    assert snippets["own"] == "said elsewhere: jade"
    assert "a zircon deposit" in snippets["window"]
    assert len(snippets["window"]) <= 302
    assert await urls(index, "jade") == ["own"]


async def test_what_is_missing_says_so(index: LocalIndex) -> None:
    await index.put([page("u", "t", "x", "here")])
    with pytest.raises(Fault, match="'there'") as unknown:
        await index.search("there", "x", 3)
    assert (unknown.value.reason, unknown.value.facts) == ("CORPUS_NOT_FOUND", {"corpus": "there"})
    with pytest.raises(Fault) as missing:
        await index.read("here", "v")
    assert (missing.value.reason, missing.value.facts) == ("PAGE_NOT_FOUND", {"url": "v", "corpus": "here"})
    assert await urls(index, "?!", "here") == []


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_no_query_text_has_syntax(text: str) -> None:
    words = words_of(build_analyzer(), text)
    assert len(words) == len(set(words)) <= 48
    query_of(build_schema(), words, "c")


@pytest.mark.parametrize("query", ['title:"x" AND (', "a^-1~ [x TO *]", "corpus:other", "+ - && || ! { } \\", "x\0y"])
async def test_query_syntax_is_plain_text(index: LocalIndex, query: str) -> None:
    await index.put([page("u", "x", "text about a title"), page("v", "x", "y", "other")])
    assert "v" not in await urls(index, query)


async def test_searches_and_ingest_at_the_same_time(index: LocalIndex) -> None:
    await index.put([page("seed", "anchor", "anchor")])

    async def fill() -> None:
        for number in range(20):
            await index.put([page(f"u{number}-{i}", "filler", "anchor text") for i in range(200)])

    filling = asyncio.create_task(fill())
    searches = 0
    while not filling.done():
        assert (await urls(index, "anchor"))[0] == "seed"
        total = (await index.corpora("", 1))[0].pages
        assert total % 200 == 1
        searches += 1
    await filling
    assert searches > 20
    assert await index.corpora("", 1) == [Corpus("c", 4_001)]


async def test_a_restart_finds_the_pages(tmp_path: Path) -> None:
    async with open_index(tmp_path, 1) as first:
        await first.put([page("u", "kept", "text")])
        async with open_index(tmp_path, 1) as second:
            assert await urls(second, "kept") == ["u"]
            with pytest.raises(FailedPrecondition, match="another process") as locked:
                await second.put([page("v", "t", "x")])
    assert (locked.value.reason, locked.value.facts) == ("INDEX_LOCKED", {"data_dir": str(tmp_path)})
    async with open_index(tmp_path, 1) as again:
        await again.put([page("v", "kept", "text")])
        assert sorted(await urls(again, "kept")) == ["u", "v"]


async def test_a_kill_in_mid_ingest_leaves_whole_commits(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio, pathlib
        from wideseek_tools.adapters.local_index import open_index
        from wideseek_tools.core.model import Page

        async def main():
            async with open_index(pathlib.Path({str(tmp_path)!r}), 1) as index:
                number = 0
                while True:
                    await index.put([Page("c", f"{{number}}-{{i}}", "t", "word " * 50, "") for i in range(500)])
                    number += 1
                    print(number, flush=True)

        asyncio.run(main())
    """)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(5):
        await process.stdout.readline()
    process.kill()
    rest = (await process.stdout.read()).split()
    await process.wait()
    told = int(rest[-1]) if rest else 5
    async with open_index(tmp_path, 1) as index:
        pages = (await index.corpora("", 1))[0].pages
        assert pages in (told * 500, (told + 1) * 500)
        await index.put([page("after", "fresh", "text")])
        assert await urls(index, "fresh") == ["after"]


@pytest.mark.parametrize("meta", ["{", '{"index_settings": 1}'])
async def test_a_damaged_index_is_named(tmp_path: Path, meta: str) -> None:
    (tmp_path / "meta.json").write_text(meta)
    with pytest.raises(UnusableIndexError, match=str(tmp_path)):
        async with open_index(tmp_path, 1):
            pass
