"""From events to whole episodes.

Invariants: an event counts once, whatever its order of arrival and however often it comes; an episode leaves only when
its closing event, every sequence number up to it and every expected turn are there; what has left is not held any more.
"""

from dataclasses import dataclass, field

from wideseek_trainer.core.trajectory import AgentEnd, Episode, EpisodeEnd, Event, Place, Turn

_MAIN_AGENTS = ("lead", "single")


@dataclass
class _Log:
    place: Place
    events: dict[int, Event] = field(default_factory=dict)
    end: Event | None = None


class Assembler:
    """Collects the logs of episodes in flight."""

    def __init__(self) -> None:
        """Start with no logs."""
        self._logs: dict[str, _Log] = {}
        self._left: set[str] = set()
        self.duplicates = 0

    def add(self, event: Event) -> Episode | None:
        """Take an event; the episode, when this event makes its log whole."""
        if event.episode in self._left:
            self.duplicates += 1
            return None
        log = self._logs.setdefault(event.episode, _Log(event.place))
        if event.sequence in log.events:
            self.duplicates += 1
            return None
        log.events[event.sequence] = event
        if isinstance(event.body, EpisodeEnd):
            log.end = event
        if log.end is None or len(log.events) < log.end.sequence:
            return None
        episode = _whole(log, log.end)
        if episode is not None:
            self.forget(event.episode)
        return episode

    def forget(self, episode: str) -> None:
        """Drop what is held of an episode and pass over the rest of its events."""
        self._logs.pop(episode, None)
        self._left.add(episode)

    @property
    def open(self) -> int:
        """Episodes whose logs are not whole yet."""
        return len(self._logs)


def _whole(log: _Log, last: Event) -> Episode | None:
    end = last.body
    assert isinstance(end, EpisodeEnd)
    turns: dict[str, dict[int, Turn]] = {}
    failed: set[str] = set()
    for _, event in sorted(log.events.items()):
        if isinstance(event.body, Turn):
            turns.setdefault(event.body.agent, {})[event.body.number] = event.body
        elif isinstance(event.body, AgentEnd) and event.body.error:
            failed.add(event.body.agent)
    if any(set(turns.get(agent, ())) != set(range(1, count + 1)) for agent, count in end.expected.items()):
        return None
    return Episode(
        episode=last.episode,
        place=log.place,
        stop=end.stop,
        answer=end.answer,
        turns={agent: tuple(turn for _, turn in sorted(own.items())) for agent, own in turns.items()},
        main_failed=any(agent in failed for agent in _MAIN_AGENTS),
        traceparent=last.traceparent,
    )
