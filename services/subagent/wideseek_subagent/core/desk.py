"""The agent's two tools: `search` and `access`.

Invariants: each query and each page is an item with its own result or error; no item is asked for beyond the budget; a
page longer than the bound is summarised for what the agent wants to know, or cut, and says so; the evidence holds what
the agent got to read, not what the page had.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from wideseek_agent.budget import LEAST_TURN_TOKENS, Budget
from wideseek_agent.messages import ToolCall, ToolSpec
from wideseek_agent.pack import Pack, PageResult, SearchResult
from wideseek_agent.tools import ACCESS, SEARCH, PageAsk, access_spec, parse_access, parse_search, search_spec
from wideseek_agent.toolset import TOOL_CALL_LIMIT, Evidence, ToolOutcome

from wideseek_subagent.core.ports import Hits, PageText, Research, Summariser

EXCERPT_CHARS = 2000
_LIMIT_TEXT = "tool call limit reached"


@dataclass(frozen=True)
class Reading:
    """How pages are read.

    Attributes:
        summarize_over_chars: longer pages are summarised or cut.
        page_chars: characters of a page that the summariser reads.
        summary_tokens: most tokens of a summary.
    """

    summarize_over_chars: int
    page_chars: int
    summary_tokens: int


class Desk:
    """The toolset of one agent; `batch` takes several queries or pages a call."""

    def __init__(
        self, research: Research, summariser: Summariser, pack: Pack, budget: Budget, reading: Reading, *, batch: bool
    ) -> None:
        """Spend tool calls and summaries from `budget`."""
        self.specs: Sequence[ToolSpec] = (search_spec(pack, batch=batch), access_spec(pack, batch=batch))
        self._research = research
        self._summariser = summariser
        self._pack = pack
        self._budget = budget
        self._reading = reading
        self._batch = batch

    async def run(self, call: ToolCall, *, turn: int, limit: int) -> ToolOutcome:
        """Carry out a `search` or an `access`.

        Raises:
            BadCallError: the arguments cannot be used.
        """
        if call.name == SEARCH:
            return await self._search(call, turn, limit)
        return await self._access(call, turn, limit)

    async def _search(self, call: ToolCall, turn: int, limit: int) -> ToolOutcome:
        queries = parse_search(call.arguments, batch=self._batch)
        allowed = queries[: self._budget.take_tool_calls(len(queries))]
        answers = await self._research.search(allowed) if allowed else ()
        results = [SearchResult(q.query, a.hits, a.origin.error) for q, a in zip(allowed, answers, strict=True)]
        evidence = [_search_evidence(q.query, a) for q, a in zip(allowed, answers, strict=True)]
        for query in queries[len(allowed) :]:
            results.append(SearchResult(query.query, error=_LIMIT_TEXT))
            evidence.append(Evidence(SEARCH, query.query, error=TOOL_CALL_LIMIT))
        return ToolOutcome(self._pack.search(results, turn=turn, limit=limit), tuple(evidence))

    async def _access(self, call: ToolCall, turn: int, limit: int) -> ToolOutcome:
        asks = parse_access(call.arguments, batch=self._batch)
        allowed = asks[: self._budget.take_tool_calls(len(asks))]
        pages = await self._research.fetch(allowed, max_chars=self._fetched_chars()) if allowed else ()
        texts = await self._texts(list(zip(allowed, pages, strict=True)))
        results, evidence = [], []
        for ask, page, text in zip(allowed, pages, texts, strict=True):
            results.append(PageResult(ask.url, text, page.origin.error))
            evidence.append(_page_evidence(ask.url, page, text))
        for ask in asks[len(allowed) :]:
            results.append(PageResult(ask.url, error=_LIMIT_TEXT))
            evidence.append(Evidence(ACCESS, ask.url, error=TOOL_CALL_LIMIT))
        return ToolOutcome(self._pack.pages(results, turn=turn, limit=limit), tuple(evidence))

    def _fetched_chars(self) -> int:
        bound = self._reading.summarize_over_chars
        return max(bound, self._reading.page_chars) if self._pack.summarises else bound

    async def _texts(self, pages: Sequence[tuple[PageAsk, PageText]]) -> Sequence[str]:
        """What the agent gets to read of each page; long ones are summarised at the same time."""
        long = sum(page.total_chars > self._reading.summarize_over_chars for _, page in pages)
        room = self._budget.room(0, final=False)
        tokens = (
            self._reading.summary_tokens if room is None else min(self._reading.summary_tokens, room // (long or 1))
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._text(ask, page, tokens)) for ask, page in pages]
        return [task.result() for task in tasks]

    async def _text(self, ask: PageAsk, page: PageText, tokens: int) -> str:
        bound = self._reading.summarize_over_chars
        if page.total_chars <= bound:
            return page.text
        if self._pack.summarises and tokens >= LEAST_TURN_TOKENS:
            messages = self._pack.summary(page.text, ask.info_to_extract)
            summary = await self._summariser.summarise(messages, max_output_tokens=tokens)
            if summary is not None:
                self._budget.spend_tokens(summary.tokens)
                if summary.text.strip():
                    return summary.text
        return self._pack.cut(page.text[:bound], total=page.total_chars)


def _search_evidence(query: str, answer: Hits) -> Evidence:
    origin = answer.origin
    found = tuple(hit.url for hit in answer.hits)
    return Evidence(SEARCH, query, origin.reason, origin.bytes, origin.latency_seconds, origin.cache_hit, found)


def _page_evidence(url: str, page: PageText, text: str) -> Evidence:
    origin = page.origin
    found = (page.title,) if page.title else ()
    return Evidence(
        ACCESS, url, origin.reason, origin.bytes, origin.latency_seconds, origin.cache_hit, found, text[:EXCERPT_CHARS]
    )
