"""What one agent, and a whole episode, may spend.

Invariants: nothing is granted beyond a limit, in whatever order concurrent agents ask; the share kept back is granted
to the final synthesis only; a limit of None is no limit. Counts are tokens, tool-call items (each query and each page
is one) and seconds of the injected clock.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

KEPT_SHARE = 0.25
KEPT_TOKENS = 4096
KEPT_SECONDS = 30.0
"""The share kept back for the final synthesis: a quarter of a limit, at most so many tokens or seconds."""

LEAST_TURN_TOKENS = 16
"""An ordinary turn with less room than this cannot hold a tool call; the final synthesis is asked for instead."""


class Exhausted(StrEnum):
    """Which limit ended an agent."""

    TURNS = "turns"
    TOOL_CALLS = "tool_calls"
    OUTPUT_TOKENS = "output_tokens"
    CONTEXT_TOKENS = "context_tokens"
    DEADLINE = "deadline"


@dataclass(frozen=True)
class Limits:
    """What one agent may spend.

    Attributes:
        turns: assistant turns, the final one included; at least 1.
        tool_calls: queries and pages.
        output_tokens: tokens generated, all turns together.
        context_tokens: tokens of the conversation.
        seconds: wall-clock time from the making of the budget.
    """

    turns: int
    tool_calls: int | None = None
    output_tokens: int | None = None
    context_tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits under which no answer is possible."""
        for name in ("turns", "tool_calls", "output_tokens", "context_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} given, at least 1")


def kept_tokens(total: int) -> int:
    """Of `total` tokens, those that are kept back for the final synthesis."""
    return min(KEPT_TOKENS, int(total * KEPT_SHARE))


@dataclass(frozen=True, eq=False)
class Allotment:
    """What an episode set aside for one agent or one turn. None means that the episode has no such limit."""

    tool_calls: int | None
    output_tokens: int | None


class EpisodeBudget:
    """What all agents of an episode may spend together: allotments are reserved, then settled with what was used."""

    def __init__(
        self, *, tool_calls: int | None = None, output_tokens: int | None = None, kept_back: int | None = None
    ) -> None:
        """Start with nothing spent; `kept_back` output tokens (unset: `kept_tokens`) are for the final synthesis."""
        self._tool_calls = _Account(tool_calls, 0)
        self._tokens = _Account(output_tokens, kept_tokens(output_tokens or 0) if kept_back is None else kept_back)
        self._open: set[Allotment] = set()

    @property
    def tool_calls(self) -> int:
        """Tool calls spent."""
        return self._tool_calls.spent

    @property
    def output_tokens(self) -> int:
        """Tokens spent."""
        return self._tokens.spent

    def free_tool_calls(self) -> int | None:
        """Tool calls neither spent nor reserved."""
        return self._tool_calls.free(final=True)

    def free_output_tokens(self, *, final: bool = False) -> int | None:
        """Tokens neither spent nor reserved; the share kept back counts only if `final`."""
        return self._tokens.free(final=final)

    def reserve(self, *, tool_calls: int = 0, output_tokens: int = 0, final: bool = False) -> Allotment:
        """Set aside as much of what is asked for as is free. Settle the allotment in any case."""
        allotment = Allotment(
            self._tool_calls.reserve(tool_calls, final=True), self._tokens.reserve(output_tokens, final=final)
        )
        self._open.add(allotment)
        return allotment

    def settle(self, allotment: Allotment, *, tool_calls: int = 0, output_tokens: int = 0) -> None:
        """Count what was used of an allotment and give the rest back.

        Raises:
            ValueError: the allotment is not open: not made here, or settled already.
        """
        if allotment not in self._open:
            raise ValueError(f"{allotment} is not open")
        self._open.remove(allotment)
        self._tool_calls.settle(allotment.tool_calls, tool_calls)
        self._tokens.settle(allotment.output_tokens, output_tokens)


class _Account:
    def __init__(self, limit: int | None, kept_back: int) -> None:
        self._limit = limit
        self._kept_back = kept_back
        self._reserved = 0
        self.spent = 0

    def free(self, *, final: bool) -> int | None:
        if self._limit is None:
            return None
        return max(0, self._limit - self.spent - self._reserved - (0 if final else self._kept_back))

    def reserve(self, wanted: int, *, final: bool) -> int | None:
        free = self.free(final=final)
        if free is None:
            return None
        granted = min(max(0, wanted), free)
        self._reserved += granted
        return granted

    def settle(self, granted: int | None, used: int) -> None:
        self._reserved -= granted or 0
        self.spent += used


class TurnGrant:
    """Leave to generate one turn of at most `max_output_tokens` tokens (None: no limit)."""

    def __init__(self, max_output_tokens: int | None) -> None:
        """Nothing is charged yet."""
        self.max_output_tokens = max_output_tokens
        self.output_tokens = 0
        self.context_tokens: int | None = None

    def charge(self, *, input_tokens: int, output_tokens: int) -> None:
        """Say what the turn took."""
        self.output_tokens = output_tokens
        self.context_tokens = input_tokens + output_tokens


class Budget:
    """What one agent has spent and may still spend; with `pool`, within what its episode has left."""

    def __init__(
        self, limits: Limits, *, clock: Callable[[], float] = time.monotonic, pool: EpisodeBudget | None = None
    ) -> None:
        """Start the clock. `clock` gives seconds and never goes back."""
        self.limits = limits
        self.turns = 0
        self.tool_calls = 0
        self.output_tokens = 0
        self.context_tokens = 0
        self._clock = clock
        self._pool = pool
        self._end = None if limits.seconds is None else clock() + limits.seconds

    def exhausted(self, pending_tokens: int = 0) -> Exhausted | None:
        """The limit by which the next turn must be the final one, if any; `pending_tokens` are about to be appended."""
        left = self.seconds_left()
        if left is not None and left <= 0:
            return Exhausted.DEADLINE
        if self.turns + 1 >= self.limits.turns:
            return Exhausted.TURNS
        if self.tool_calls_left() == 0:
            return Exhausted.TOOL_CALLS
        rooms = self._rooms(pending_tokens, final=False)
        which = min(rooms, key=lambda name: rooms[name], default=None)
        return which if which is not None and rooms[which] < LEAST_TURN_TOKENS else None

    def tool_calls_left(self) -> int | None:
        """Queries and pages that may still be asked for."""
        own = None if self.limits.tool_calls is None else self.limits.tool_calls - self.tool_calls
        pool = self._pool.free_tool_calls() if self._pool else None
        return min((left for left in (own, pool) if left is not None), default=None)

    def take_tool_calls(self, wanted: int) -> int:
        """Spend up to `wanted` tool calls; returns how many there were."""
        left = self.tool_calls_left()
        taken = wanted if left is None else min(wanted, left)
        self.tool_calls += taken
        if self._pool:
            self._pool.settle(self._pool.reserve(tool_calls=taken), tool_calls=taken)
        return taken

    def spend_tokens(self, tokens: int) -> None:
        """Count tokens generated for the agent outside of its own turns, such as a summary's."""
        self.output_tokens += tokens
        if self._pool:
            self._pool.settle(self._pool.reserve(), output_tokens=tokens)

    def seconds_left(self, *, final: bool = False) -> float | None:
        """Seconds until the deadline; unless `final`, less the share kept back. Negative when it has passed."""
        if self._end is None or self.limits.seconds is None:
            return None
        kept = 0.0 if final else min(KEPT_SECONDS, self.limits.seconds * KEPT_SHARE)
        return self._end - kept - self._clock()

    def room(self, pending_tokens: int, *, final: bool) -> int | None:
        """Tokens that the next turn may generate after `pending_tokens` were appended; at least 0."""
        smallest = min(self._rooms(pending_tokens, final=final).values(), default=None)
        return None if smallest is None else max(0, smallest)

    def room_for_messages(self) -> int | None:
        """Tokens that may be appended to the conversation so that the final synthesis still has its share."""
        limit = self.limits.context_tokens
        return None if limit is None else max(0, limit - kept_tokens(limit) - self.context_tokens)

    @contextmanager
    def turn(self, pending_tokens: int, *, final: bool) -> Iterator[TurnGrant]:
        """Leave to generate one turn; what was charged inside counts, nothing if the turn failed."""
        room = self.room(pending_tokens, final=final)
        allotment = self._pool.reserve(output_tokens=room or 0, final=final) if self._pool else None
        grant = TurnGrant(room)
        try:
            yield grant
        finally:
            if self._pool and allotment:
                self._pool.settle(allotment, output_tokens=grant.output_tokens)
            if grant.context_tokens is not None:
                self.turns += 1
                self.output_tokens += grant.output_tokens
                self.context_tokens = grant.context_tokens

    def _rooms(self, pending_tokens: int, *, final: bool) -> dict[Exhausted, int]:
        rooms: dict[Exhausted, int] = {}
        if (total := self.limits.output_tokens) is not None:
            rooms[Exhausted.OUTPUT_TOKENS] = total - self.output_tokens - (0 if final else kept_tokens(total))
        if self._pool and (free := self._pool.free_output_tokens(final=final)) is not None:
            rooms[Exhausted.OUTPUT_TOKENS] = min(free, rooms.get(Exhausted.OUTPUT_TOKENS, free))
        if (whole := self.limits.context_tokens) is not None:
            kept = 0 if final else kept_tokens(whole)
            rooms[Exhausted.CONTEXT_TOKENS] = whole - self.context_tokens - pending_tokens - kept
        return rooms
