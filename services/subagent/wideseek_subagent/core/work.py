"""Works on one subtask: opens the conversation, runs the loop, makes the report.

Invariant: the limits hold; a limit that the model's own context undercuts is lowered to it.
"""

import time
from dataclasses import dataclass, replace

from wideseek_agent.budget import Budget, Exhausted, Limits
from wideseek_agent.loop import AgentOutcome, OnProgress, OnTurn, Stop, run_agent
from wideseek_agent.messages import AgentRole
from wideseek_agent.pack import Pack

from wideseek_subagent.core.desk import Desk, Reading
from wideseek_subagent.core.ports import Backends, Subtask

NO_ANSWER = "NO_ANSWER"
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"


@dataclass(frozen=True)
class Report:
    """What the agent brought back: `text`, or why there is none (`error` in UPPER_SNAKE, `error_message` in words)."""

    turns: int
    text: str = ""
    error: str = ""
    error_message: str = ""
    budget_exhausted: bool = False


async def work(
    subtask: Subtask, pack: Pack, backends: Backends, reading: Reading, *, on_turn: OnTurn, on_progress: OnProgress
) -> Report:
    """Run the subtask's agent to its end."""
    started = time.monotonic()
    policy = backends.policy(subtask)
    context_limit = await policy.context_limit()
    budget = Budget(_left_of(subtask.limits, context_limit, time.monotonic() - started))
    batch = subtask.role is AgentRole.SUBAGENT
    desk = Desk(backends.research(subtask), backends.summariser(subtask), pack, budget, reading, batch=batch)
    opening = pack.opening(
        subtask.role,
        subtask.prompt,
        answer_format=subtask.answer_format,
        columns=subtask.columns,
        key_columns=subtask.key_columns,
        max_turns=subtask.limits.turns,
    )
    return report(await run_agent(policy, desk, pack, opening, budget, on_turn, on_progress))


def report(outcome: AgentOutcome) -> Report:
    """What the lead is told of an agent's end."""
    ended = outcome.stop is Stop.BUDGET
    if outcome.text.strip():
        return Report(outcome.turns, outcome.text, budget_exhausted=ended)
    if not ended:
        return Report(outcome.turns, "", NO_ANSWER, "the agent's last reply holds no text")
    reason = DEADLINE_EXCEEDED if outcome.limit is Exhausted.DEADLINE else BUDGET_EXHAUSTED
    return Report(outcome.turns, "", reason, f"no answer within the limit: {outcome.limit}", budget_exhausted=True)


def _left_of(limits: Limits, context_limit: int, seconds_gone: float) -> Limits:
    """The limits as they are after `seconds_gone`, for a model that holds `context_limit` tokens (0: unknown)."""
    return replace(
        limits,
        context_tokens=min(filter(None, (limits.context_tokens, context_limit)), default=None),
        seconds=None if limits.seconds is None else limits.seconds - seconds_gone,
    )
