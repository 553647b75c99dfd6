"""The lead's tool: subagents that work at the same time, each within its own allotment of the episode's budget.

Invariants: no more subagents are started than the episode may have, and none without something to spend; every
subagent that was asked for has a report, if only of its failure; when the time for the final synthesis comes, those
still at work are stopped and reported, and what the others brought is kept; nobody works on after `run` has returned.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from wideseek_agent.budget import Allotment, Budget, EpisodeBudget
from wideseek_agent.messages import AgentRole, ToolCall, ToolSpec
from wideseek_agent.pack import Pack, Report
from wideseek_agent.tools import CREATE_SUB_AGENTS, create_sub_agents_spec, parse_sub_agents
from wideseek_agent.toolset import OUT_OF_TIME, Evidence, ToolOutcome, counted

from wideseek_lead.core.episode import EpisodeSpec
from wideseek_lead.core.ports import (
    LEAD,
    AgentFinished,
    AgentStarted,
    Journal,
    Subtask,
    SubtaskFailedError,
    SubtaskLimits,
    SubtaskReport,
    SubtaskRunner,
    SubtaskTurn,
)

BUDGET_SPENT = "BUDGET_SPENT"
CANCELLED = "CANCELLED"
EMPTY_REPORT = "EMPTY_REPORT"
NO_REPORT = "NO_REPORT"
LEAST_TOKENS = 64
"""A subagent with fewer tokens than this could not call a tool and report."""


@dataclass(frozen=True)
class Width:
    """How wide a lead may spread.

    Attributes:
        parallel: subagents at work at the same time.
        tool_calls: the most tool calls that one subagent gets.
        output_tokens: the most tokens that one subagent gets.
        context_tokens: tokens of a subagent's conversation.
    """

    parallel: int
    tool_calls: int
    output_tokens: int
    context_tokens: int


class Delegation:
    """A toolset with one tool, `create_sub_agents`."""

    def __init__(
        self,
        episode_id: str,
        spec: EpisodeSpec,
        width: Width,
        *,
        pack: Pack,
        runner: SubtaskRunner,
        journal: Journal,
        budget: Budget,
        pool: EpisodeBudget,
    ) -> None:
        """Work for one episode: `budget` is the lead's own, `pool` what the whole episode may spend."""
        self._episode_id = episode_id
        self._spec = spec
        self._width = width
        self._pack = pack
        self._runner = runner
        self._journal = journal
        self._budget = budget
        self._pool = pool
        self.out_of_time = False
        """Whether subagents were stopped because the time for the answer had come."""
        self._started = 0
        self._slots = asyncio.Semaphore(width.parallel)

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tool, as the model is told of it."""
        return (create_sub_agents_spec(self._pack),)

    async def run(self, call: ToolCall, *, turn: int, limit: int) -> ToolOutcome:
        """Run the subagents of one call and bring their reports, in the order asked for.

        Raises:
            BadCallError: the arguments cannot be used; nothing was started.
        """
        prompts = parse_sub_agents(call.arguments)
        works = self._start(prompts, turn)
        await self._finish([work for work in works if work.task is not None])
        reports = [work.report() for work in works]
        return ToolOutcome(
            self._pack.reports(reports, turn=turn, limit=limit), tuple(work.evidence() for work in works)
        )

    def _start(self, prompts: Sequence[str], turn: int) -> list["_Work"]:
        works = [_Work(prompt) for prompt in prompts]
        number, why = self._affordable(len(prompts))
        shares = self._shares(number)
        for work, allotment in zip(works, shares, strict=False):
            self._started += 1
            work.agent_id = f"s{self._started}"
            work.task = asyncio.create_task(self._work(work, allotment, turn))
        for work in works[number:]:
            work.fail(BUDGET_SPENT, why)
        return works

    def _affordable(self, wanted: int) -> tuple[int, str]:
        """How many subagents can be started now, and in words what stops the others."""
        most = self._spec.limits.max_subagents
        calls = self._pool.free_tool_calls()
        tokens = self._pool.free_output_tokens()
        bounds = [(most - self._started, f"the episode may have {most} subagents and has had them")]
        if calls is not None:
            bounds.append((calls, f"of the episode's {self._spec.limits.max_tool_calls} tool calls {calls} are left"))
        if tokens is not None:
            words = f"of the episode's {self._spec.limits.max_output_tokens} output tokens {tokens} are left"
            bounds.append((tokens // LEAST_TOKENS, words))
        number, why = min(bounds, key=lambda bound: bound[0])
        return min(wanted, number), f"not started: {why}"

    def _shares(self, number: int) -> list[Allotment]:
        """Equal parts of what is free now, capped; what a subagent does not use comes back when it ends."""
        if number == 0:
            return []
        calls, tokens = self._pool.free_tool_calls(), self._pool.free_output_tokens()
        calls = self._width.tool_calls if calls is None else min(self._width.tool_calls, calls // number)
        tokens = self._width.output_tokens if tokens is None else min(self._width.output_tokens, tokens // number)
        return [self._pool.reserve(tool_calls=calls, output_tokens=tokens) for _ in range(number)]

    def _seconds(self) -> float:
        """Seconds that subagents may take: a little is left for the reports to come together."""
        left = self._budget.seconds_left()
        return self._spec.limits.deadline if left is None else max(0.0, left - min(1.0, 0.05 * left))

    async def _finish(self, works: Sequence["_Work"]) -> None:
        tasks = [work.task for work in works if work.task is not None]
        if not tasks:
            return
        try:
            _, late = await asyncio.wait(tasks, timeout=self._seconds())
            self.out_of_time = self.out_of_time or bool(late)
            for work in works:
                work.fail(OUT_OF_TIME, "stopped: the time for the answer has come")  # if it has not ended
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _work(self, work: "_Work", allotment: Allotment, turn: int) -> None:
        try:
            async with self._slots:
                self._journal.agent_started(AgentStarted(work.agent_id, AgentRole.SUBAGENT, work.prompt, LEAD, turn))
                work.began = True
                await self._follow(work, allotment)
        except asyncio.CancelledError:
            work.fail(CANCELLED, "stopped with the episode")  # unless it is known to be out of time
            raise
        finally:
            self._pool.settle(allotment, tool_calls=work.tool_calls, output_tokens=work.output_tokens)
            work.end()
            if work.began:
                self._journal.agent_finished(work.finished())

    async def _follow(self, work: "_Work", allotment: Allotment) -> None:
        limits = SubtaskLimits(
            turns=self._spec.limits.max_subagent_turns,
            tool_calls=self._width.tool_calls if allotment.tool_calls is None else allotment.tool_calls,
            output_tokens=self._width.output_tokens if allotment.output_tokens is None else allotment.output_tokens,
            context_tokens=self._width.context_tokens,
            seconds=self._seconds(),
        )
        task = Subtask(self._episode_id, work.agent_id, AgentRole.SUBAGENT, work.prompt, limits, self._spec)
        try:
            async with aclosing(self._runner.run(task)) as steps:
                async for step in steps:
                    if isinstance(step, SubtaskReport):
                        work.reported(step)
                        return
                    work.took(step)
                    self._journal.subtask_turn(step)
                    await self._journal.room()
            work.fail(NO_REPORT, "ended without a report")
        except SubtaskFailedError as error:
            work.fail(error.reason, error.message)


class _Work:
    """One prompt on its way to a report. The first end that is told counts."""

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self.agent_id = ""
        self.task: asyncio.Task[None] | None = None
        self.began = False
        self.turns = 0
        self.tool_calls = 0
        self.output_tokens = 0
        self._loop_time = asyncio.get_running_loop().time
        self._created = self._loop_time()
        self._seconds = 0.0
        self._text = ""
        self._error = ""
        self._words = ""

    def took(self, turn: SubtaskTurn) -> None:
        self.turns += 1
        self.tool_calls += counted(turn.evidence)
        self.output_tokens += turn.output_tokens

    def reported(self, report: SubtaskReport) -> None:
        if report.error:
            self.fail(report.error, report.error_message)
        elif not report.text.strip():
            why = "ran out of its budget without a report" if report.budget_exhausted else "its report is empty"
            self.fail(EMPTY_REPORT, why)
        else:
            self._text = report.text

    def fail(self, reason: str, words: str) -> None:
        if not (self._text or self._error):
            self._error, self._words = reason, words

    def end(self) -> None:
        self._seconds = self._loop_time() - self._created

    def report(self) -> Report:
        return Report(error=f"{self._error}: {self._words}") if self._error else Report(text=self._text)

    def finished(self) -> AgentFinished:
        return AgentFinished(self.agent_id, self.turns, self._text, self._error, self._words)

    def evidence(self) -> Evidence:
        return Evidence(
            tool=CREATE_SUB_AGENTS,
            input=self.prompt,
            error=self._error,
            bytes=len(self._text.encode()),
            latency_seconds=self._seconds,
        )
