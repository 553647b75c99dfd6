"""What an episode has spent and read so far, folded from its events.

Invariant: folding a stored log gives the same figures as folding the events while they happened, so a lead that
closes another's episode reports what the first one would have. No token ids are kept.
"""

from collections.abc import Sequence

from wideseek_agent.toolset import Evidence, counted

from wideseek_lead.core.answer import PageRead
from wideseek_lead.core.episode import Usage


class Tally:
    """Counts of one episode. Feed it the events in their order."""

    def __init__(self) -> None:
        """Nothing spent."""
        self._turns: dict[str, int] = {}
        self._tool_calls = 0
        self._input_tokens = 0
        self._output_tokens = 0
        self._pages: dict[PageRead, None] = {}

    def started(self, agent_id: str) -> None:
        """An agent began."""
        self._turns.setdefault(agent_id, 0)

    def turn(self, agent_id: str, *, input_tokens: int, output_tokens: int, evidence: Sequence[Evidence]) -> None:
        """An agent finished a turn."""
        self._turns[agent_id] = self._turns.get(agent_id, 0) + 1
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        self._tool_calls += counted(evidence)
        for item in evidence:
            if item.tool == "access" and not item.error:
                self._pages[PageRead(item.input, "\n".join((*item.found, item.excerpt)))] = None

    @property
    def turns(self) -> dict[str, int]:
        """Agent to its turns, in the order in which the agents began."""
        return dict(self._turns)

    @property
    def pages(self) -> tuple[PageRead, ...]:
        """The pages read, each text once."""
        return tuple(self._pages)

    @property
    def usage(self) -> Usage:
        """What was spent."""
        return Usage(
            agents=len(self._turns),
            turns=sum(self._turns.values()),
            tool_calls=self._tool_calls,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
        )
