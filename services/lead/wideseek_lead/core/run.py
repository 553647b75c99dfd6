"""Runs one episode to its answer: a lead with subagents, or one agent alone.

Invariants: the main agent's start and end are in the journal exactly once, whatever happens in between; an episode
ends by its deadline; leaving the run stops everything under it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from wideseek_agent.budget import Budget, EpisodeBudget, Exhausted, Limits
from wideseek_agent.loop import AgentOutcome, Model, Stop, TurnRecord, run_agent
from wideseek_agent.messages import AgentRole
from wideseek_agent.pack import Pack

from wideseek_lead.core.delegation import CANCELLED, NO_REPORT, Delegation, Width
from wideseek_lead.core.episode import EpisodeSpec, StopReason
from wideseek_lead.core.ports import (
    LEAD,
    SINGLE,
    AgentFinished,
    AgentStarted,
    Journal,
    Subtask,
    SubtaskFailedError,
    SubtaskLimits,
    SubtaskReport,
    SubtaskRunner,
)

DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the text of the main agent's last reply, and why it was the last."""

    text: str
    stop: StopReason


async def run_multi(
    episode_id: str,
    spec: EpisodeSpec,
    width: Width,
    *,
    model: Model,
    pack: Pack,
    runner: SubtaskRunner,
    journal: Journal,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run a lead with subagents. What the model raises reaches the caller, after the lead's end is recorded."""
    limits = spec.limits
    pool = EpisodeBudget(tool_calls=limits.max_tool_calls, output_tokens=limits.max_output_tokens)
    own = Limits(turns=limits.max_turns, context_tokens=width.context_tokens, seconds=limits.deadline)
    budget = Budget(own, clock=clock, pool=pool)
    tools = Delegation(episode_id, spec, width, pack=pack, runner=runner, journal=journal, budget=budget, pool=pool)
    opening = pack.opening(
        AgentRole.LEAD,
        spec.question,
        answer_format=spec.answer_format,
        columns=spec.required_columns,
        key_columns=spec.key_columns,
        max_subagents=limits.max_subagents,
        max_turns=limits.max_turns,
    )

    async def on_turn(record: TurnRecord) -> None:
        journal.own_turn(LEAD, record)
        await journal.room()

    journal.agent_started(AgentStarted(LEAD, AgentRole.LEAD, spec.question))
    end = AgentFinished(LEAD, 0, error=INTERNAL, error_message="ended by an error")
    try:
        outcome = await run_agent(model, tools, pack, opening, budget, on_turn)
        end = AgentFinished(LEAD, outcome.turns, outcome.text)
        return Outcome(outcome.text, StopReason.DEADLINE if tools.out_of_time else _stop(outcome))
    except asyncio.CancelledError:
        end = AgentFinished(LEAD, budget.turns, error=CANCELLED, error_message="stopped with the episode")
        raise
    except Exception as error:
        end = AgentFinished(LEAD, budget.turns, error=_reason(error), error_message=str(error))
        raise
    finally:
        journal.agent_finished(end)


async def run_single(
    episode_id: str, spec: EpisodeSpec, width: Width, *, runner: SubtaskRunner, journal: Journal
) -> Outcome:
    """Run one agent that has the tools itself.

    Raises:
        SubtaskFailedError: it ended without a reply.
    """
    limits = SubtaskLimits(
        turns=spec.limits.max_turns,
        tool_calls=spec.limits.max_tool_calls,
        output_tokens=spec.limits.max_output_tokens,
        context_tokens=width.context_tokens,
        seconds=spec.limits.deadline,
    )
    task = Subtask(episode_id, SINGLE, AgentRole.SINGLE, spec.question, limits, spec)
    journal.agent_started(AgentStarted(SINGLE, AgentRole.SINGLE, spec.question))
    turns = 0
    end = AgentFinished(SINGLE, 0, error=INTERNAL, error_message="ended by an error")
    try:
        async with asyncio.timeout(spec.limits.deadline), aclosing(runner.run(task)) as steps:
            async for step in steps:
                if isinstance(step, SubtaskReport):
                    end = AgentFinished(SINGLE, turns, step.text, step.error, step.error_message)
                    return _single_outcome(step)
                turns += 1
                journal.subtask_turn(step)
                await journal.room()
        raise SubtaskFailedError(NO_REPORT, "the single agent ended without a report")
    except asyncio.CancelledError:
        end = AgentFinished(SINGLE, turns, error=CANCELLED, error_message="stopped with the episode")
        raise
    except TimeoutError:
        words = f"no answer within {spec.limits.deadline:g} s"
        end = AgentFinished(SINGLE, turns, error=DEADLINE_EXCEEDED, error_message=words)
        return Outcome("", StopReason.DEADLINE)
    except SubtaskFailedError as error:
        end = AgentFinished(SINGLE, turns, error=error.reason, error_message=error.message)
        if error.reason == DEADLINE_EXCEEDED:
            return Outcome("", StopReason.DEADLINE)
        raise
    finally:
        journal.agent_finished(end)


def _single_outcome(report: SubtaskReport) -> Outcome:
    if report.error:
        raise SubtaskFailedError(report.error, report.error_message)
    return Outcome(report.text, StopReason.BUDGET if report.budget_exhausted else StopReason.ANSWERED)


def _stop(outcome: AgentOutcome) -> StopReason:
    if outcome.stop is Stop.ANSWERED:
        return StopReason.ANSWERED
    return StopReason.DEADLINE if outcome.limit is Exhausted.DEADLINE else StopReason.BUDGET


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", INTERNAL))
