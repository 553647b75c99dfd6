"""The run of an episode: scripted models, fake subagents, virtual time; no transport."""

import asyncio
import json
import selectors
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wideseek_agent.loop import Generated, TurnRecord
from wideseek_agent.messages import AnswerFormat, Message, Role, ToolCall
from wideseek_agent.pack import Pack
from wideseek_agent.toolset import Evidence
from wideseek_lead.core.delegation import LEAST_TOKENS, Width
from wideseek_lead.core.episode import EpisodeLimits, EpisodeSpec, Mode, Sampling, StopReason
from wideseek_lead.core.ports import (
    AgentFinished,
    AgentStarted,
    Subtask,
    SubtaskFailedError,
    SubtaskReport,
    SubtaskTurn,
)
from wideseek_lead.core.run import Outcome, run_multi, run_single

LIMITS = EpisodeLimits(
    max_subagents=8, max_turns=4, max_subagent_turns=5, max_tool_calls=100, max_output_tokens=10_000, deadline=1000.0
)
SPEC = EpisodeSpec(
    question="q",
    mode=Mode.MULTI,
    answer_format=AnswerFormat.TABLE,
    required_columns=(),
    key_columns=(),
    language="en",
    limits=LIMITS,
    sampling=Sampling(),
    corpus="default",
    model="policy",
    prompt_pack="full",
)
WIDTH = Width(parallel=4, tool_calls=30, output_tokens=3000, context_tokens=100_000)
PACK = Pack.load("full", "en")


class _Leap(selectors.DefaultSelector):
    """Instead of waiting, time goes on by as much."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now


def virtual(work: Awaitable[Any]) -> Any:
    async def body() -> Any:
        result = await work
        assert len(asyncio.all_tasks()) == 1  # nothing works on behind the run
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(body())


Reply = str | list[str] | tuple[str, ...]


@dataclass
class ScriptedModel:
    """Says its replies one after the other; a list of prompts is a call of create_sub_agents."""

    replies: Sequence[Reply]
    tokens: int = 10
    seconds: float = 0.0
    seen: list[str] = field(default_factory=list)

    async def generate(self, context: Any, messages: Any, tools: Any, *, max_output_tokens: int | None) -> Generated:
        await asyncio.sleep(self.seconds)
        self.seen += [message.content for message in messages]
        turn = (context or 0) + 1
        reply = self.replies[min(turn, len(self.replies)) - 1]
        calls: tuple[ToolCall, ...] = ()
        if not isinstance(reply, str):
            arguments = {"sub_agents": [{"prompt": prompt} for prompt in reply]}
            calls = (ToolCall("create_sub_agents", arguments, json.dumps(arguments)),)
        text = reply if isinstance(reply, str) else ""
        tokens = self.tokens if max_output_tokens is None else min(self.tokens, max_output_tokens)
        return Generated(turn, Message(Role.ASSISTANT, text, "", calls), "stop", 50, tokens)


@dataclass
class Notes:
    """A journal that keeps what it is told."""

    events: list[Any] = field(default_factory=list)

    def agent_started(self, event: AgentStarted) -> None:
        self.events.append(event)

    def own_turn(self, agent_id: str, record: TurnRecord) -> None:
        self.events.append((agent_id, record))

    def subtask_turn(self, turn: SubtaskTurn) -> None:
        self.events.append(turn)

    def agent_finished(self, event: AgentFinished) -> None:
        self.events.append(event)

    async def room(self) -> None:
        await asyncio.sleep(0)

    def started(self) -> list[str]:
        return [event.agent_id for event in self.events if isinstance(event, AgentStarted)]

    def finished(self) -> dict[str, AgentFinished]:
        ends = [event for event in self.events if isinstance(event, AgentFinished)]
        assert len({end.agent_id for end in ends}) == len(ends)
        return {end.agent_id: end for end in ends}


@dataclass
class Workers:
    """Subagents of `turns` turns, each of `tool_calls` pages and `tokens` tokens within what they were given."""

    turns: int = 1
    tokens: int = 10
    tool_calls: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    fail: dict[str, Exception] = field(default_factory=dict)
    text: Callable[[Subtask], str] = lambda task: f"report on {task.prompt}"
    tasks: list[Subtask] = field(default_factory=list)
    active: int = 0
    most: int = 0
    left: list[str] = field(default_factory=list)

    async def run(self, task: Subtask) -> AsyncGenerator[SubtaskTurn | SubtaskReport, None]:
        self.tasks.append(task)
        self.active += 1
        self.most = max(self.most, self.active)
        calls, tokens = task.limits.tool_calls, task.limits.output_tokens
        try:
            for number in range(1, min(self.turns, task.limits.turns) + 1):
                await asyncio.sleep(self.seconds.get(task.prompt, 1.0))
                spent, calls_now = min(self.tokens, tokens), min(self.tool_calls, calls)
                tokens, calls = tokens - spent, calls - calls_now
                evidence = (Evidence("access", "u", excerpt="x"),) * calls_now
                yield SubtaskTurn(task.agent_id, number, 20, spent, evidence, None)
            if task.prompt in self.fail:
                raise self.fail[task.prompt]
            yield SubtaskReport(self.text(task), self.turns)
        finally:
            self.active -= 1
            self.left.append(task.prompt)


def play(
    model: ScriptedModel, workers: Workers, spec: EpisodeSpec = SPEC, width: Width = WIDTH
) -> tuple[Outcome, Notes]:
    notes = Notes()

    async def body() -> Outcome:
        return await run_multi(
            "e",
            spec,
            width,
            model=model,
            pack=PACK,
            runner=workers,
            journal=notes,
            clock=asyncio.get_running_loop().time,
        )

    return virtual(body()), notes


def limited(**limits: Any) -> EpisodeSpec:
    return replace(SPEC, limits=replace(LIMITS, **limits))


def test_subagents_work_at_the_same_time_within_the_width() -> None:
    model = ScriptedModel([[f"p{n}" for n in range(7)], ["last"], "the answer"])
    workers = Workers()
    outcome, notes = play(model, workers)
    assert outcome == Outcome("the answer", StopReason.ANSWERED)
    assert workers.most == WIDTH.parallel
    assert notes.started() == ["lead", *(f"s{n}" for n in range(1, 9))]
    assert all(f"report on p{n}" in model.seen[2] for n in range(7))
    parents = [(e.parent_agent_id, e.parent_turn) for e in notes.events if isinstance(e, AgentStarted)]
    assert parents == [("", 0)] + [("lead", 1)] * 7 + [("lead", 2)]
    assert {end.text for end in notes.finished().values()} >= {"the answer", "report on p0", "report on last"}


def test_more_than_ten_at_once_is_a_bad_call_and_the_lead_goes_on() -> None:
    model = ScriptedModel([[f"p{n}" for n in range(11)], "the answer"])
    workers = Workers()
    outcome, _ = play(model, workers)
    assert not workers.tasks
    assert "11 given, at most 10" in model.seen[2]
    assert outcome.text == "the answer"


def test_a_failed_subagent_is_reported_beside_the_others() -> None:
    model = ScriptedModel([["a", "b", "c", "d"], "the answer"])
    workers = Workers(
        fail={"b": SubtaskFailedError("MODEL_AWAY", "gone")},
        text=lambda task: "" if task.prompt == "c" else f"report on {task.prompt}",
    )
    outcome, notes = play(model, workers)
    assert outcome.stop is StopReason.ANSWERED
    assert "report on a" in model.seen[2]
    assert "MODEL_AWAY: gone" in model.seen[2]
    assert "EMPTY_REPORT" in model.seen[2]
    ends = notes.finished()
    assert [ends[f"s{n}"].error for n in (1, 2, 3, 4)] == ["", "MODEL_AWAY", "EMPTY_REPORT", ""]
    [turn] = [record for agent, record in (e for e in notes.events if isinstance(e, tuple)) if record.turn == 1]
    assert [item.error for item in turn.evidence] == ["", "MODEL_AWAY", "EMPTY_REPORT", ""]


def test_subagents_beyond_the_budget_are_not_started_and_told() -> None:
    model = ScriptedModel([["a", "b"], ["c", "d"], "the answer"])
    workers = Workers()
    outcome, notes = play(model, workers, limited(max_subagents=3))
    assert [task.prompt for task in workers.tasks] == ["a", "b", "c"]
    assert notes.started() == ["lead", "s1", "s2", "s3"]
    assert "BUDGET_SPENT: not started: the episode may have 3 subagents" in model.seen[3]
    assert outcome.text == "the answer"


@settings(max_examples=60, deadline=None)
@given(
    calls=st.integers(1, 60),
    tokens=st.integers(1, 4000),
    widths=st.lists(st.integers(1, 10), min_size=1, max_size=3),
    worker=st.tuples(st.integers(1, 4), st.integers(1, 900), st.integers(0, 9)),
)
def test_the_budget_of_the_episode_holds_for_all_agents_together(
    calls: int, tokens: int, widths: list[int], worker: tuple[int, int, int]
) -> None:
    replies: list[Reply] = [[f"p{n}" for n in range(width)] for width in widths]
    model = ScriptedModel([*replies, "the answer"], tokens=40)
    workers = Workers(turns=worker[0], tokens=worker[1], tool_calls=worker[2])
    spec = limited(max_tool_calls=calls, max_output_tokens=tokens, max_subagents=20)
    _, notes = play(model, workers, spec)
    turns = [event for event in notes.events if isinstance(event, SubtaskTurn)]
    own = [record.generated.output_tokens for _, record in (e for e in notes.events if isinstance(e, tuple))]
    assert sum(len(turn.evidence) for turn in turns) <= calls
    assert sum(turn.output_tokens for turn in turns) + sum(own) <= tokens
    for task in workers.tasks:
        assert task.limits.tool_calls >= 1
        assert task.limits.output_tokens >= LEAST_TOKENS
    if not workers.tasks and tokens >= 200:
        pytest.fail("nobody was started although there was something to spend")


def test_the_time_for_the_answer_stops_subagents_and_keeps_what_came() -> None:
    model = ScriptedModel([["quick", "slow"], "the answer"], seconds=0.1)
    workers = Workers(seconds={"slow": 10_000.0})
    spec = limited(deadline=100.0)
    outcome, notes = play(model, workers, spec)
    assert outcome == Outcome("the answer", StopReason.DEADLINE)
    assert "report on quick" in model.seen[2]
    assert "OUT_OF_TIME" in model.seen[2]
    ends = notes.finished()
    assert (ends["s1"].error, ends["s2"].error, ends["lead"].error) == ("", "OUT_OF_TIME", "")
    assert sorted(workers.left) == ["quick", "slow"]


def test_a_lead_that_cannot_answer_in_time_ends_at_the_deadline() -> None:
    model = ScriptedModel(["too late"], seconds=1e6)
    outcome, notes = play(model, Workers(), limited(deadline=50.0))
    assert outcome == Outcome("", StopReason.DEADLINE)
    assert notes.finished()["lead"].text == ""


def test_the_last_turn_is_the_answer() -> None:
    model = ScriptedModel([["a"], ["b"], ["c"], ["d"], ["e"]])
    workers = Workers()
    outcome, notes = play(model, workers, limited(max_turns=3))
    assert outcome.stop is StopReason.BUDGET
    assert [task.prompt for task in workers.tasks] == ["a", "b"]
    assert notes.finished()["lead"].turns == 3


@pytest.mark.parametrize("single", [False, True])
def test_cancelling_stops_all_agents_and_journals_their_end(single: bool) -> None:
    notes, workers = Notes(), Workers(seconds={"a": 1e6, "b": 1e6, "q": 1e6})

    async def body() -> None:
        if single:
            run = run_single("e", SPEC, WIDTH, runner=workers, journal=notes)
        else:
            model = ScriptedModel([["a", "b"]])
            run = run_multi("e", SPEC, WIDTH, model=model, pack=PACK, runner=workers, journal=notes)
        task = asyncio.create_task(run)
        await asyncio.sleep(5)
        assert workers.active == (1 if single else 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert workers.active == 0

    virtual(body())
    ends = notes.finished()
    assert set(ends) == ({"single"} if single else {"lead", "s1", "s2"})
    assert {end.error for end in ends.values()} == {"CANCELLED"}


def single(workers: Workers, spec: EpisodeSpec = SPEC) -> tuple[Outcome, Notes]:
    notes = Notes()

    async def body() -> Outcome:
        return await run_single("e", spec, WIDTH, runner=workers, journal=notes)

    return virtual(body()), notes


def test_a_single_agent_gets_the_whole_budget_and_answers() -> None:
    workers = Workers(turns=2)
    outcome, notes = single(workers)
    assert outcome == Outcome("report on q", StopReason.ANSWERED)
    [task] = workers.tasks
    assert (task.limits.turns, task.limits.tool_calls) == (LIMITS.max_turns, LIMITS.max_tool_calls)
    assert notes.finished()["single"].turns == 2


def test_a_single_agent_ends_at_the_deadline() -> None:
    outcome, notes = single(Workers(seconds={"q": 1e6}))
    assert outcome == Outcome("", StopReason.DEADLINE)
    assert notes.finished()["single"].error == "DEADLINE_EXCEEDED"


def test_a_single_agent_that_fails_is_an_error() -> None:
    with pytest.raises(SubtaskFailedError, match="gone"):
        single(Workers(fail={"q": SubtaskFailedError("MODEL_AWAY", "gone")}))
