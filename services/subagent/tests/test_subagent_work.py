from collections.abc import Sequence
from typing import Any

import pytest
from wideseek_agent.budget import Exhausted, Limits
from wideseek_agent.loop import AgentOutcome, Generated, Stop, TurnRecord
from wideseek_agent.messages import AgentRole, AnswerFormat, Message, Role, ToolSpec
from wideseek_agent.pack import Pack
from wideseek_agent.tools import PageAsk, Query
from wideseek_subagent.core.desk import Reading
from wideseek_subagent.core.ports import Hits, PageText, Subtask, Summary
from wideseek_subagent.core.work import Report, report, work


class Echo:
    """A model that answers at once, and everything else a backend has."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.told: Sequence[Message] = ()
        self.cap: int | None = None

    def policy(self, subtask: Subtask) -> "Echo":
        return self

    def research(self, subtask: Subtask) -> "Echo":
        return self

    def summariser(self, subtask: Subtask) -> "Echo":
        return self

    async def context_limit(self) -> int:
        return self.context

    async def generate(
        self, context: Any, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_output_tokens: int | None
    ) -> Generated:
        self.told, self.cap = messages, max_output_tokens
        return Generated((), Message(Role.ASSISTANT, "done"), "stop", 10, 5)

    async def search(self, queries: Sequence[Query]) -> Sequence[Hits]:
        raise AssertionError("not asked for")

    async def fetch(self, pages: Sequence[PageAsk], *, max_chars: int) -> Sequence[PageText]:
        raise AssertionError("not asked for")

    async def summarise(self, messages: Sequence[Message], *, max_output_tokens: int) -> Summary | None:
        raise AssertionError("not asked for")


async def play(subtask: Subtask, echo: Echo, pack: Pack) -> Report:
    async def on_turn(_: TurnRecord) -> None:
        return None

    async def on_progress(_: int, __: Message) -> None:
        return None

    return await work(subtask, pack, echo, Reading(1, 1, 1), on_turn=on_turn, on_progress=on_progress)


@pytest.mark.parametrize(("own", "models", "cap"), [(8000, 2000, 2000), (2000, 8000, 2000), (2000, 0, 2000)])
async def test_the_smaller_context_counts(own: int, models: int, cap: int) -> None:
    pack, echo = Pack.load("seed", "en"), Echo(models)
    subtask = Subtask("e", "s1", AgentRole.SUBAGENT, "Find it.", Limits(20, context_tokens=own), "seed")
    assert await play(subtask, echo, pack) == Report(1, "done")
    assert echo.cap is not None
    assert cap * 0.7 < echo.cap < cap * 0.75


async def test_a_single_agent_gets_the_whole_question() -> None:
    pack, echo = Pack.load("full", "en"), Echo(0)
    subtask = Subtask(
        "e",
        "single",
        AgentRole.SINGLE,
        "Which moons?",
        Limits(50),
        "full",
        answer_format=AnswerFormat.TABLE,
        columns=("moon", "size"),
        key_columns=("moon",),
    )
    await play(subtask, echo, pack)
    expected = pack.opening(
        AgentRole.SINGLE, "Which moons?", columns=("moon", "size"), key_columns=("moon",), max_turns=50
    )
    assert list(echo.told) == expected


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (AgentOutcome("text", 2, Stop.ANSWERED), Report(2, "text")),
        (AgentOutcome("text", 2, Stop.BUDGET, Exhausted.TURNS), Report(2, "text", budget_exhausted=True)),
        (AgentOutcome(" ", 2, Stop.ANSWERED), Report(2, "", "NO_ANSWER", "the agent's last reply holds no text")),
        (
            AgentOutcome("", 2, Stop.BUDGET, Exhausted.DEADLINE),
            Report(2, "", "DEADLINE_EXCEEDED", "no answer within the limit: deadline", budget_exhausted=True),
        ),
        (
            AgentOutcome("", 2, Stop.BUDGET, Exhausted.CONTEXT_TOKENS),
            Report(2, "", "BUDGET_EXHAUSTED", "no answer within the limit: context_tokens", budget_exhausted=True),
        ),
    ],
)
def test_every_end_has_its_report(outcome: AgentOutcome, expected: Report) -> None:
    assert report(outcome) == expected
