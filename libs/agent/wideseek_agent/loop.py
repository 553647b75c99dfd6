"""The turn loop that every agent runs: generate, run the tool call, tell the model, until it answers or must.

Invariants: the conversation only grows; a reply without tool calls ends the agent; when a limit is near, the agent is
told so once and the next reply is its answer, whatever it calls; turns are handed on in order, each after its tools.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from wideseek_agent.budget import Budget, Exhausted
from wideseek_agent.messages import Message, Role, ToolSpec
from wideseek_agent.pack import Pack
from wideseek_agent.toolset import OUT_OF_TIME, BadCallError, Evidence, ToolOutcome, Toolset, only_call

_BYTES_A_TOKEN = 3
_TOKENS_A_MESSAGE = 8


class ContextFullError(Exception):
    """The model cannot take the messages: the conversation would outgrow its context. Nothing was appended."""


@dataclass(frozen=True)
class Generated:
    """One generated turn.

    Attributes:
        context: the conversation with this turn, to be handed to the next `generate`; opaque here.
        message: the reply, parsed.
        finish_reason: "stop" or "length".
        input_tokens: tokens the model read, all of the conversation counted.
        output_tokens: tokens generated.
        record: whatever the model wants to hand to `on_turn`; opaque here.
    """

    context: Any
    message: Message
    finish_reason: str
    input_tokens: int
    output_tokens: int
    record: Any = None


class Model(Protocol):
    """What generates an agent's turns."""

    async def generate(
        self, context: Any, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_output_tokens: int | None
    ) -> Generated:
        """Append `messages` to `context` (None starts a conversation, with `tools`) and generate a turn.

        Raises:
            ContextFullError: the messages do not fit.
        """


@dataclass(frozen=True)
class TurnRecord:
    """A finished turn (from 1), its tools included."""

    turn: int
    generated: Generated
    evidence: tuple[Evidence, ...]


class Stop(StrEnum):
    """How an agent ended."""

    ANSWERED = "answered"
    BUDGET = "budget"


@dataclass(frozen=True)
class AgentOutcome:
    """How an agent ended and with what.

    Attributes:
        text: the last reply without reasoning; empty when there was no room or time for one.
        turns: assistant turns taken.
        stop: whether it was done by itself.
        limit: the limit that ended it; None when it was done by itself.
    """

    text: str
    turns: int
    stop: Stop
    limit: Exhausted | None = None


OnTurn = Callable[[TurnRecord], Awaitable[None]]
OnProgress = Callable[[int, Message], Awaitable[None]]


async def _no_progress(turn: int, message: Message) -> None:
    return None


async def run_agent(
    model: Model,
    toolset: Toolset,
    pack: Pack,
    opening: Sequence[Message],
    budget: Budget,
    on_turn: OnTurn,
    on_progress: OnProgress = _no_progress,
) -> AgentOutcome:
    """Run one agent to its end.

    `on_progress` is awaited with each reply before its tools run, `on_turn` with each turn after them. Work that would
    run into the share of time kept back is cancelled; a toolset that wants to save partial results ends before
    `budget.seconds_left()`. What the model raises, but for `ContextFullError`, ends the agent and reaches the caller.
    """
    return await _Agent(model, toolset, pack, budget, on_turn, on_progress).run(tuple(opening))


def estimated_tokens(messages: Sequence[Message]) -> int:
    """Tokens that the messages will take, on the safe side for prose; exact counts come with the next turn."""
    return sum(len(message.content.encode()) // _BYTES_A_TOKEN + _TOKENS_A_MESSAGE for message in messages)


class _Agent:
    def __init__(
        self, model: Model, toolset: Toolset, pack: Pack, budget: Budget, on_turn: OnTurn, on_progress: OnProgress
    ) -> None:
        self._model = model
        self._toolset = toolset
        self._pack = pack
        self._budget = budget
        self._on_turn = on_turn
        self._on_progress = on_progress
        self._context: Any = None

    async def run(self, pending: tuple[Message, ...]) -> AgentOutcome:
        while True:
            why = self._budget.exhausted(estimated_tokens(pending))
            if why is not None:
                return await self._finish(pending, why)
            try:
                async with asyncio.timeout(self._budget.seconds_left()) as bound:
                    generated = await self._generate(pending, final=False)
            except TimeoutError:
                if not bound.expired():
                    raise
                return await self._finish(pending, Exhausted.DEADLINE)
            except ContextFullError:
                return await self._finish(self._unfit(pending), Exhausted.CONTEXT_TOKENS)
            reply = generated.message
            await self._on_progress(self._budget.turns, reply)
            if reply.tool_calls:
                outcome = await self._call(reply)
                await self._turn(generated, outcome.evidence)
                pending = (outcome.message,)
            elif generated.finish_reason == "length" and self._budget.room(0, final=True) != 0:
                await self._turn(generated)  # the reply was cut short: what is kept back pays for a shorter one
                return await self._finish((), Exhausted.OUTPUT_TOKENS)
            else:
                await self._turn(generated)
                return AgentOutcome(reply.content, self._budget.turns, Stop.ANSWERED)

    async def _generate(self, pending: tuple[Message, ...], *, final: bool) -> Generated:
        tools = self._toolset.specs if self._pack.send_tool_specs else ()
        with self._budget.turn(estimated_tokens(pending), final=final) as grant:
            generated = await self._model.generate(
                self._context, pending, tools, max_output_tokens=grant.max_output_tokens
            )
            grant.charge(input_tokens=generated.input_tokens, output_tokens=generated.output_tokens)
        self._context = generated.context
        return generated

    async def _call(self, reply: Message) -> ToolOutcome:
        turn, limit = self._budget.turns, self._budget.limits.turns
        try:
            call = only_call(reply.tool_calls, self._toolset.specs)
            async with asyncio.timeout(self._budget.seconds_left()) as bound:
                return await self._toolset.run(call, turn=turn, limit=limit)
        except BadCallError as error:
            fault, reason = str(error), error.reason
        except TimeoutError:
            if not bound.expired():
                raise
            fault, reason = "out of time", OUT_OF_TIME
        first = reply.tool_calls[0]
        evidence = Evidence(tool=first.name, input=first.raw or str(first.arguments), error=reason)
        return ToolOutcome(self._pack.bad_call(fault, turn=turn, limit=limit), (evidence,))

    async def _finish(self, pending: tuple[Message, ...], why: Exhausted) -> AgentOutcome:
        pending = (*self._fitted(pending), self._pack.final_notice())
        if self._budget.room(estimated_tokens(pending), final=True) == 0:
            return AgentOutcome("", self._budget.turns, Stop.BUDGET, why)
        try:
            async with asyncio.timeout(self._budget.seconds_left(final=True)) as bound:
                generated = await self._generate(pending, final=True)
        except TimeoutError:
            if not bound.expired():
                raise
            return AgentOutcome("", self._budget.turns, Stop.BUDGET, Exhausted.DEADLINE)
        except ContextFullError:
            return AgentOutcome("", self._budget.turns, Stop.BUDGET, Exhausted.CONTEXT_TOKENS)
        await self._on_progress(self._budget.turns, generated.message)
        await self._turn(generated)
        return AgentOutcome(generated.message.content, self._budget.turns, Stop.BUDGET, why)

    async def _turn(self, generated: Generated, evidence: tuple[Evidence, ...] = ()) -> None:
        await self._on_turn(TurnRecord(self._budget.turns, generated, evidence))

    def _fitted(self, pending: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages, tool results cut so that the final synthesis keeps its share of the context."""
        room = self._budget.room_for_messages()
        if room is None or estimated_tokens(pending) <= room:
            return pending
        most = max(0, room - _TOKENS_A_MESSAGE) * _BYTES_A_TOKEN // max(1, len(pending))
        return tuple(
            replace(m, content=m.content.encode()[:most].decode(errors="ignore")) if m.role is Role.TOOL else m
            for m in pending
        )

    def _unfit(self, pending: tuple[Message, ...]) -> tuple[Message, ...]:
        """In place of tool results that the model had no room for, a word that they were left out."""
        if self._context is None:
            return pending
        return (
            self._pack.bad_call(
                "the result is longer than the context has room for",
                turn=self._budget.turns,
                limit=self._budget.limits.turns,
            ),
        )
