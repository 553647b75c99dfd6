from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from wideseek_agent.budget import Budget, Limits
from wideseek_agent.messages import Message, ToolCall
from wideseek_agent.pack import Hit, Pack, PageResult, SearchResult
from wideseek_agent.tools import PageAsk, Query
from wideseek_agent.toolset import BadCallError, counted
from wideseek_subagent.core.desk import EXCERPT_CHARS, Desk, Reading
from wideseek_subagent.core.ports import Hits, Origin, PageText, Summary

FULL = Pack.load("full", "en")
SEED = Pack.load("seed", "en")
READING = Reading(summarize_over_chars=4000, page_chars=32_000, summary_tokens=200)
OK = Origin(bytes=7, latency_seconds=0.5, cache_hit=True)
HIT = Hit("Zark", "atlas://zark", "A planet.")


@dataclass
class Library:
    """Research over a few pages; what is not there fails."""

    pages: dict[str, str]
    asked: list[Any] = field(default_factory=list)

    async def search(self, queries: Sequence[Query]) -> Sequence[Hits]:
        self.asked += queries
        bad = Hits(Origin(error="unavailable", reason="UNAVAILABLE"))
        return [bad if q.query == "broken" else Hits(OK, (HIT,)) for q in queries]

    async def fetch(self, pages: Sequence[PageAsk], *, max_chars: int) -> Sequence[PageText]:
        self.asked += [(page.url, max_chars) for page in pages]
        return [self._page(page.url, max_chars) for page in pages]

    def _page(self, url: str, most: int) -> PageText:
        text = self.pages.get(url)
        if text is None:
            return PageText(Origin(error="page not found", reason="PAGE_NOT_FOUND"))
        return PageText(OK, "Zark", text[:most], len(text))


@dataclass
class Scribe:
    """A summariser that gives `text`, or fails when there is none."""

    text: str | None = "12 km"
    asked: list[tuple[Sequence[Message], int]] = field(default_factory=list)

    async def summarise(self, messages: Sequence[Message], *, max_output_tokens: int) -> Summary | None:
        self.asked.append((messages, max_output_tokens))
        return None if self.text is None else Summary(self.text, 30)


@dataclass
class Office:
    desk: Desk
    library: Library
    scribe: Scribe
    budget: Budget

    async def call(self, tool: str, **arguments: Any) -> Any:
        return await self.desk.run(ToolCall(tool, arguments), turn=2, limit=9)


def office(
    pages: dict[str, str] | None = None,
    *,
    pack: Pack = FULL,
    batch: bool = True,
    limits: Limits = Limits(turns=9),  # noqa: B008 -- frozen
    summary: str | None = "12 km",
) -> Office:
    library, scribe, budget = Library(pages or {}), Scribe(summary), Budget(limits)
    return Office(Desk(library, scribe, pack, budget, READING, batch=batch), library, scribe, budget)


async def test_each_query_has_its_own_result_or_error() -> None:
    here = office()
    outcome = await here.call("search", queries=[{"query": "moons", "count": 4}, {"query": "broken"}])
    results = [SearchResult("moons", (HIT,)), SearchResult("broken", error="unavailable")]
    assert outcome.message == FULL.search(results, turn=2, limit=9)
    first, second = outcome.evidence
    assert (first.tool, first.input, first.found) == ("search", "moons", ("atlas://zark",))
    assert (first.bytes, first.latency_seconds, first.cache_hit) == (7, 0.5, True)
    assert second.error == "UNAVAILABLE"
    assert here.library.asked == [Query("moons", 4), Query("broken")]
    assert here.budget.tool_calls == counted(outcome.evidence) == 2


async def test_short_pages_are_given_whole_and_a_bad_address_stands_beside_them() -> None:
    here = office({"atlas://zark": "Zark has Ono."})
    urls = [{"url": "atlas://zark", "info_to_extract": "moons"}, {"url": "atlas://no", "info_to_extract": "x"}]
    outcome = await here.call("access", urls=urls)
    pages = [PageResult("atlas://zark", "Zark has Ono."), PageResult("atlas://no", error="page not found")]
    assert outcome.message == FULL.pages(pages, turn=2, limit=9)
    read, missing = outcome.evidence
    assert (read.excerpt, read.found, read.error) == ("Zark has Ono.", ("Zark",), "")
    assert (missing.excerpt, missing.found, missing.error) == ("", (), "PAGE_NOT_FOUND")
    assert here.scribe.asked == []


async def test_a_long_page_is_summarised_for_what_is_wanted() -> None:
    here = office({"u": "Zark. " * 1000})
    outcome = await here.call("access", urls=[{"url": "u", "info_to_extract": "the size"}])
    assert "12 km" in outcome.message.content
    assert "Zark. Zark." not in outcome.message.content
    ((messages, tokens),) = here.scribe.asked
    assert "the size" in messages[0].content
    assert "Zark. Zark." in messages[0].content
    assert tokens == READING.summary_tokens
    assert outcome.evidence[0].excerpt == "12 km"
    assert here.budget.output_tokens == 30
    assert here.library.asked == [("u", READING.page_chars)]


async def test_a_page_at_the_bound_is_whole_one_above_it_is_not() -> None:
    here = office({"at": "a" * 4000, "above": "b" * 4001}, pack=SEED)
    outcome = await here.call("access", urls=[{"url": "at"}, {"url": "above"}])
    assert "a" * 4000 in outcome.message.content
    assert "b" * 4001 not in outcome.message.content
    assert "[4000 of 4001 characters shown]" in outcome.message.content
    assert outcome.evidence[0].excerpt == "a" * EXCERPT_CHARS
    assert here.library.asked == [("at", 4000), ("above", 4000)]


@pytest.mark.parametrize("summary", [None, "  "])
async def test_a_summary_that_fails_leaves_the_start_of_the_page(summary: str | None) -> None:
    here = office({"u": "c" * 5000}, summary=summary)
    outcome = await here.call("access", urls=[{"url": "u"}])
    assert "c" * 4000 in outcome.message.content
    assert "first 4000 of 5000" in outcome.message.content


async def test_summaries_share_what_is_left_of_the_tokens() -> None:
    here = office({"u": "c" * 5000, "v": "d" * 5000}, limits=Limits(turns=9, output_tokens=400))
    await here.call("access", urls=[{"url": "u"}, {"url": "v"}])
    assert [tokens for _, tokens in here.scribe.asked] == [150, 150]
    assert here.budget.output_tokens == 60
    poor = office({"u": "c" * 5000}, limits=Limits(turns=9, output_tokens=18))
    await poor.call("access", urls=[{"url": "u"}])
    assert poor.scribe.asked == []


async def test_items_beyond_the_limit_are_told_and_not_asked_for() -> None:
    here = office({"u": "text"}, limits=Limits(turns=9, tool_calls=3))
    first = await here.call("search", queries=[{"query": "a"}, {"query": "b"}])
    second = await here.call("access", urls=[{"url": "u"}, {"url": "u"}])
    third = await here.call("search", queries=[{"query": "c"}])
    assert [item.error for item in (*first.evidence, *second.evidence, *third.evidence)] == [
        "",
        "",
        "",
        "TOOL_CALL_LIMIT",
        "TOOL_CALL_LIMIT",
    ]
    assert "tool call limit reached" in second.message.content
    assert len(here.library.asked) == 3


async def test_a_single_agent_asks_one_thing_a_call() -> None:
    here = office({"u": "text"}, batch=False)
    outcome = await here.call("search", query="moons", count=2)
    assert outcome.message == FULL.search([SearchResult("moons", (HIT,))], turn=2, limit=9)
    assert "text" in (await here.call("access", url="u", info_to_extract="x")).message.content
    assert here.library.asked == [Query("moons", 2), ("u", 32_000)]
    with pytest.raises(BadCallError, match="query: nothing given"):
        await here.call("search", queries=[{"query": "moons"}])


async def test_a_bad_call_spends_nothing() -> None:
    here = office()
    with pytest.raises(BadCallError, match="urls: 6 given, at most 5"):
        await here.call("access", urls=[{"url": "u"}] * 6)
    assert here.budget.tool_calls == 0


def test_the_specs_fit_the_form() -> None:
    assert [spec.name for spec in office().desk.specs] == ["search", "access"]
    assert "queries" in office().desk.specs[0].parameters["properties"]
    assert "query" in office(batch=False).desk.specs[0].parameters["properties"]
