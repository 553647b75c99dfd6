import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wideseek_agent.budget import Budget, Exhausted, Limits
from wideseek_agent.loop import (
    AgentOutcome,
    ContextFullError,
    Generated,
    Stop,
    TurnRecord,
    estimated_tokens,
    run_agent,
)
from wideseek_agent.messages import AgentRole, Message, Role, ToolCall, ToolSpec
from wideseek_agent.pack import Pack
from wideseek_agent.toolset import BadCallError, Evidence, ToolOutcome, counted

PACK = Pack.load("full", "en")
SPECS = (ToolSpec("search", "", {}), ToolSpec("access", "", {}))
NOTICE = PACK.final_notice()


def said(text: str = "", *calls: ToolCall) -> Message:
    return Message(Role.ASSISTANT, text, tool_calls=calls)


def search(query: str = "moons") -> Message:
    return said("", ToolCall("search", {"query": query}, raw='{"name": "search"}'))


@dataclass
class ScriptedModel:
    """Plays replies; a token is a byte. The conversation is kept in the context, so that appending is checked."""

    replies: Callable[[int], Message] | Sequence[Message]
    wait: float = 0.0
    full_above: int | None = None
    calls: list[tuple[tuple[Message, ...], tuple[ToolSpec, ...], int | None]] = field(default_factory=list)
    said: int = 0

    async def generate(
        self, context: Any, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_output_tokens: int | None
    ) -> Generated:
        before: tuple[Message, ...] = context or ()
        read = sum(len(m.content.encode()) for m in (*before, *messages))
        if self.full_above is not None and read > self.full_above:
            raise ContextFullError(f"{read} > {self.full_above}")
        self.calls.append((tuple(messages), tuple(tools), max_output_tokens))
        if self.wait:
            await asyncio.sleep(self.wait)
        number = self.said
        self.said += 1
        reply = self.replies(number) if callable(self.replies) else self.replies[number]
        size = len(reply.content.encode()) + 10 * len(reply.tool_calls)
        cut = max_output_tokens is not None and size > max_output_tokens
        if cut:
            assert max_output_tokens is not None
            reply = said(reply.content.encode()[:max_output_tokens].decode())
            size = max_output_tokens
        return Generated((*before, *messages, reply), reply, "length" if cut else "stop", read, size)


@dataclass
class Tools:
    budget: Budget
    text: str = "found"
    wait: float = 0.0
    cancelled: bool = False
    ran: list[ToolCall] = field(default_factory=list)
    specs: Sequence[ToolSpec] = SPECS

    async def run(self, call: ToolCall, *, turn: int, limit: int) -> ToolOutcome:
        if call.arguments.get("query") == "":
            raise BadCallError("query: empty")
        self.ran.append(call)
        self.budget.take_tool_calls(1)
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return ToolOutcome(Message(Role.TOOL, f"{self.text} {turn}/{limit}"), (Evidence("search", "q"),))


@dataclass
class Run:
    outcome: AgentOutcome
    model: ScriptedModel
    tools: Tools
    turns: list[TurnRecord]
    trace: list[str]
    budget: Budget


async def play(model: ScriptedModel, limits: Limits, **tools: Any) -> Run:
    budget = Budget(limits)
    kit = Tools(budget, **tools)
    turns: list[TurnRecord] = []
    trace: list[str] = []

    async def on_turn(record: TurnRecord) -> None:
        turns.append(record)
        trace.append(f"turn {record.turn}")

    async def on_progress(turn: int, message: Message) -> None:
        trace.append(f"progress {turn}")

    opening = PACK.opening(AgentRole.SUBAGENT, "Find it.", max_turns=limits.turns)
    outcome = await run_agent(model, kit, PACK, opening, budget, on_turn, on_progress)
    return Run(outcome, model, kit, turns, trace, budget)


async def test_a_reply_without_tool_calls_ends_the_agent() -> None:
    run = await play(ScriptedModel([search(), search("rings"), said("All found.")]), Limits(turns=20))
    assert run.outcome == AgentOutcome("All found.", 3, Stop.ANSWERED)
    assert [call.arguments["query"] for call in run.tools.ran] == ["moons", "rings"]
    assert run.trace == ["progress 1", "turn 1", "progress 2", "turn 2", "progress 3", "turn 3"]
    assert [len(turn.evidence) for turn in run.turns] == [1, 1, 0]


async def test_each_turn_brings_only_what_is_new() -> None:
    run = await play(ScriptedModel([search(), said("done")]), Limits(turns=20))
    first, second = (call[0] for call in run.model.calls)
    assert [m.role for m in first] == [Role.SYSTEM, Role.USER]
    assert [m.content for m in second] == ["found 1/20"]


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (said("", ToolCall("", raw="{", error="not JSON")), "MALFORMED_CALL", "malformed tool call: not JSON"),
        (said("", ToolCall("fly", {"to": "Zark"})), "UNKNOWN_TOOL", "no tool 'fly', only search, access"),
        (said("", ToolCall("search"), ToolCall("access")), "SEVERAL_CALLS", "2 tool calls in one reply, at most 1"),
        (said("", ToolCall("search", {"query": ""})), "BAD_ARGUMENTS", "query: empty"),
    ],
)
async def test_a_call_that_cannot_run_is_told_and_the_agent_goes_on(reply: Message, reason: str, words: str) -> None:
    run = await play(ScriptedModel([reply, said("done")]), Limits(turns=20))
    assert run.outcome == AgentOutcome("done", 2, Stop.ANSWERED)
    told = run.model.calls[1][0][0]
    assert told == PACK.bad_call(words, turn=1, limit=20)
    assert [item.error for item in run.turns[0].evidence] == [reason]
    assert counted(run.turns[0].evidence) == 0
    assert run.tools.ran == []


async def test_one_turn_short_of_the_limit_the_agent_is_asked_to_answer() -> None:
    run = await play(ScriptedModel([search(), search(), said("what I have")]), Limits(turns=3))
    assert run.outcome == AgentOutcome("what I have", 3, Stop.BUDGET, Exhausted.TURNS)
    assert run.model.calls[2][0][-1] == NOTICE
    assert [NOTICE in call[0] for call in run.model.calls] == [False, False, True]


async def test_tool_calls_of_the_final_reply_are_ignored() -> None:
    final = said("so far: Ono", ToolCall("search", {"query": "more"}))
    run = await play(ScriptedModel([search(), final]), Limits(turns=2))
    assert run.outcome == AgentOutcome("so far: Ono", 2, Stop.BUDGET, Exhausted.TURNS)
    assert len(run.tools.ran) == 1
    assert run.turns[-1].evidence == ()


async def test_tool_calls_used_up_bring_the_final_synthesis() -> None:
    run = await play(ScriptedModel(lambda n: said("end") if n == 2 else search()), Limits(turns=20, tool_calls=2))
    assert run.outcome == AgentOutcome("end", 3, Stop.BUDGET, Exhausted.TOOL_CALLS)


async def test_output_tokens_are_capped_and_a_share_pays_for_the_answer() -> None:
    run = await play(ScriptedModel(lambda n: search()), Limits(turns=50, output_tokens=100))
    caps = [call[2] for call in run.model.calls]
    assert caps == [75, 65, 55, 45, 35, 25, 40]
    assert run.outcome.limit is Exhausted.OUTPUT_TOKENS
    assert run.budget.output_tokens <= 100


async def test_a_reply_cut_short_is_followed_by_a_shorter_one() -> None:
    run = await play(ScriptedModel([said("x" * 200), said("short")]), Limits(turns=20, output_tokens=100))
    assert run.outcome == AgentOutcome("short", 2, Stop.BUDGET, Exhausted.OUTPUT_TOKENS)
    assert [turn.generated.finish_reason for turn in run.turns] == ["length", "stop"]
    assert run.model.calls[1][0] == (NOTICE,)


async def test_a_long_result_is_cut_so_that_the_answer_has_room() -> None:
    model = ScriptedModel([search(), said("answer")])
    run = await play(model, Limits(turns=20, context_tokens=4000), text="page " * 4000)
    assert run.outcome == AgentOutcome("answer", 2, Stop.BUDGET, Exhausted.CONTEXT_TOKENS)
    told = model.calls[1][0][0]
    assert 0 < len(told.content) < 9000
    assert told.content.startswith("page page")


async def test_a_result_that_the_model_has_no_room_for_is_left_out() -> None:
    model = ScriptedModel([search(), said("answer")], full_above=4000)
    run = await play(model, Limits(turns=20), text="7" * 5000)
    assert run.outcome == AgentOutcome("answer", 2, Stop.BUDGET, Exhausted.CONTEXT_TOKENS)
    assert "longer than the context has room for" in model.calls[1][0][0].content


async def test_an_opening_without_room_ends_without_text() -> None:
    run = await play(ScriptedModel([said("never")], full_above=10), Limits(turns=20))
    assert run.outcome == AgentOutcome("", 0, Stop.BUDGET, Exhausted.CONTEXT_TOKENS)
    assert run.turns == []


async def test_a_context_smaller_than_the_opening_generates_nothing() -> None:
    run = await play(ScriptedModel([said("never")]), Limits(turns=20, context_tokens=30))
    assert run.outcome == AgentOutcome("", 0, Stop.BUDGET, Exhausted.CONTEXT_TOKENS)
    assert run.model.calls == []


async def test_tools_that_run_into_the_share_of_time_are_stopped_and_the_agent_answers() -> None:
    model = ScriptedModel([search(), said("in time")])
    run = await play(model, Limits(turns=20, seconds=0.4), wait=60.0)
    assert run.outcome == AgentOutcome("in time", 2, Stop.BUDGET, Exhausted.DEADLINE)
    assert run.tools.cancelled
    assert [item.error for item in run.turns[0].evidence] == ["OUT_OF_TIME"]


async def test_a_model_slower_than_the_deadline_gives_no_text() -> None:
    run = await play(ScriptedModel([said("late"), said("late")], wait=60.0), Limits(turns=20, seconds=0.2))
    assert run.outcome == AgentOutcome("", 0, Stop.BUDGET, Exhausted.DEADLINE)
    assert run.model.calls[1][0][-1] == NOTICE


async def test_a_timeout_of_the_model_itself_is_not_taken_for_the_deadline() -> None:
    def fail(_: int) -> Message:
        raise TimeoutError("the model's own")

    with pytest.raises(TimeoutError, match="the model's own"):
        await play(ScriptedModel(fail), Limits(turns=20, seconds=60.0))


async def test_cancelling_the_agent_cancels_its_tools() -> None:
    budget = Budget(Limits(turns=5))
    kit = Tools(budget, wait=60.0)

    async def ignore(_: TurnRecord) -> None:
        return None

    opening = PACK.opening(AgentRole.SUBAGENT, "Find it.")
    task = asyncio.create_task(run_agent(ScriptedModel([search()]), kit, PACK, opening, budget, ignore))
    while not kit.ran:  # noqa: ASYNC110 -- what is waited for belongs to the code under test
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kit.cancelled


async def test_the_seed_pack_sends_no_tool_specs() -> None:
    budget = Budget(Limits(turns=5))
    seed = Pack.load("seed", "en")
    model = ScriptedModel([said("done")])

    async def ignore(_: TurnRecord) -> None:
        return None

    await run_agent(model, Tools(budget), seed, seed.opening(AgentRole.SUBAGENT, "q"), budget, ignore)
    assert model.calls[0][1] == ()
    run = await play(ScriptedModel([said("done")]), Limits(turns=5))
    assert run.model.calls[0][1] == SPECS


def test_the_estimate_is_on_the_safe_side_for_prose() -> None:
    words = "The moons of Zark were counted by a committee. " * 20
    assert estimated_tokens([Message(Role.TOOL, words)]) > len(words.split())


@given(
    turns=st.integers(1, 12),
    tool_calls=st.none() | st.integers(1, 20),
    output_tokens=st.none() | st.integers(1, 400),
    context_tokens=st.none() | st.integers(1, 6000),
    sizes=st.lists(st.tuples(st.booleans(), st.integers(0, 300)), min_size=13, max_size=13),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_model_says_the_limits_hold(
    turns: int,
    tool_calls: int | None,
    output_tokens: int | None,
    context_tokens: int | None,
    sizes: list[tuple[bool, int]],
) -> None:
    def reply(number: int) -> Message:
        calls, size = sizes[number]
        return said("y" * size, *([ToolCall("search", {"query": "q"})] if calls else []))

    limits = Limits(turns, tool_calls, output_tokens, context_tokens)
    run = asyncio.run(play(ScriptedModel(reply), limits))
    assert run.outcome.turns == len(run.turns) == run.budget.turns <= turns
    assert [turn.turn for turn in run.turns] == list(range(1, run.outcome.turns + 1))
    if tool_calls is not None:
        assert len(run.tools.ran) <= tool_calls
    if output_tokens is not None:
        assert sum(turn.generated.output_tokens for turn in run.turns) <= output_tokens
    notices = sum(NOTICE in call[0] for call in run.model.calls)
    assert notices <= 1
    if run.outcome.stop is Stop.BUDGET and run.outcome.text:
        assert notices == 1
