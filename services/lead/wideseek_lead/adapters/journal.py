"""Writes one episode's log: an ordered outbox in front of JetStream.

Invariants: sequences run from 1 without gaps in the order of recording; recording never waits and never fails, so a
NATS that is away does not stop the episode; what waits to be stored is bounded over all episodes of the process, and
`room` holds the episodes back at the bound; each publication expects the one before it to be the log's last, so a
lead that another has declared lost cannot write behind the closing event.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from nats.js.errors import APIError
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek_agent.loop import TurnRecord
from wideseek_agent.remote import turn_to_wire
from wideseek_contract.episodes import subject
from wideseek_kit.bus import AWAY, Bus
from wideseek_kit.telemetry import traceparent

from wideseek_lead import wire_events
from wideseek_lead.adapters.log import LogReader
from wideseek_lead.core import ports
from wideseek_lead.core.episode import Episode
from wideseek_lead.core.tally import Tally

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_NOT_THE_LAST = (10071, 10164)  # JetStream's codes for an expectation that does not hold
_log = logging.getLogger(__name__)


class FencedError(Exception):
    """The log was closed by another lead: this one no longer owns the episode."""


class Backlog:
    """Bytes that wait to be stored, over all episodes of the process."""

    def __init__(self, limit: int) -> None:
        """At `limit` bytes the episodes are held back."""
        self._limit = limit
        self.waiting = 0
        self._room = asyncio.Event()
        self._room.set()

    def add(self, size: int) -> None:
        """`size` bytes more (or fewer, if negative) wait."""
        self.waiting += size
        if self.waiting < self._limit:
            self._room.set()
        else:
            self._room.clear()

    async def room(self) -> None:
        """Wait until fewer bytes wait than the limit."""
        await self._room.wait()


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class EpisodeJournal:
    """The one writer of an episode's log (see `core.ports.Journal`). `run` must run beside it."""

    def __init__(
        self,
        bus: Bus,
        episode: Episode,
        backlog: Backlog,
        *,
        place: int = 0,
        sequence: int = 0,
        tally: Tally | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Write behind event `sequence`, which stands at `place` of the stream (0, 0: a new log)."""
        self.tally = tally or Tally()
        self.last_sequence = sequence
        self._bus = bus
        self._reader = LogReader(bus)
        self._episode = episode
        self._backlog = backlog
        self._place = place
        self._now = now
        self._waiting = 0
        self._queue: asyncio.Queue[tuple[bytes, str, dict[str, str]]] = asyncio.Queue()

    def episode_started(self) -> None:
        """Record the start of the episode."""
        event = self._event("", wire_events.STARTED)
        event.episode_started.CopyFrom(wire_events.episode_started(self._episode))
        self._put(event)

    def agent_started(self, event: ports.AgentStarted) -> None:
        """Record that an agent began."""
        self.tally.started(event.agent_id)
        made = self._event(event.agent_id, "agent_started")
        made.agent_started.CopyFrom(wire_events.agent_started(event))
        self._put(made)

    def own_turn(self, agent_id: str, record: TurnRecord) -> None:
        """Record a turn that the episode generated itself."""
        generated = record.generated
        self.tally.turn(
            agent_id,
            input_tokens=generated.input_tokens,
            output_tokens=generated.output_tokens,
            evidence=record.evidence,
        )
        self._put_turn(agent_id, record.turn, turn_to_wire(agent_id, record))

    def subtask_turn(self, turn: ports.SubtaskTurn) -> None:
        """Record a turn that a runner streamed; its payload is the contract's Turn."""
        self.tally.turn(
            turn.agent_id,
            input_tokens=turn.input_tokens,
            output_tokens=turn.output_tokens,
            evidence=turn.evidence,
        )
        self._put_turn(turn.agent_id, turn.turn, turn.payload)

    def agent_finished(self, event: ports.AgentFinished) -> None:
        """Record that an agent ended."""
        made = self._event(event.agent_id, "agent_finished")
        made.agent_finished.CopyFrom(wire_events.agent_finished(event))
        self._put(made)

    def episode_finished(self, episode: Episode) -> None:
        """Record the end of the episode; nothing may be recorded after it."""
        event = self._event("", wire_events.FINISHED)
        event.episode_finished.CopyFrom(wire_events.episode_finished(episode, self.tally))
        self._put(event)

    async def room(self) -> None:
        """Wait while too much is recorded but not stored."""
        await self._backlog.room()

    async def flush(self) -> None:
        """Wait until all that was recorded is stored."""
        await self._queue.join()

    async def run(self) -> None:
        """Store what is recorded, until cancelled.

        Raises:
            FencedError: another lead has closed the log.
        """
        try:
            while True:
                payload, event_id, headers = await self._queue.get()
                await self._store(payload, event_id, headers)
                self._weigh(-len(payload))
                self._queue.task_done()
        finally:
            self._weigh(-self._waiting)  # what is given up does not hold back the other episodes

    def _event(self, agent_id: str, kind: str, turn: int = 0) -> events.TrajectoryEvent:
        self.last_sequence += 1
        return wire_events.envelope(self._episode, self.last_sequence, self._now(), agent_id, kind, turn)

    def _put_turn(self, agent_id: str, number: int, turn: events.Turn) -> None:
        event = self._event(agent_id, "turn", number)
        event.turn.CopyFrom(turn)
        self._put(event)

    def _put(self, event: events.TrajectoryEvent) -> None:
        event.traceparent = traceparent()
        headers = {"traceparent": event.traceparent} if event.traceparent else {}
        payload = event.SerializeToString()
        self._weigh(len(payload))
        self._queue.put_nowait((payload, event.event_id, headers))

    def _weigh(self, size: int) -> None:
        self._waiting += size
        self._backlog.add(size)

    async def _store(self, payload: bytes, event_id: str, headers: dict[str, str]) -> None:
        delay = 0.05
        while True:
            try:
                self._place = await self._publish(payload, event_id, headers)
                return
            except AWAY as error:
                _log.warning("%s waits for NATS: %s", event_id, str(error) or type(error).__name__)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 1.0)

    async def _publish(self, payload: bytes, event_id: str, headers: dict[str, str]) -> int:
        episode_id = self._episode.episode_id
        try:
            expected = {_EXPECTED: str(self._place), **headers}
            return await self._bus.publish(subject(episode_id), payload, event_id, expected)
        except APIError as error:
            if error.err_code not in _NOT_THE_LAST:
                raise
        last = await self._reader.last(episode_id)
        if last is not None and last.event is not None and last.event.event_id == event_id:
            return last.place  # an earlier try was stored, its acknowledgement was lost
        if last is not None and (last.event is None or last.event.WhichOneof("event") == "episode_finished"):
            raise FencedError(f"the log of {episode_id} was closed by another lead before {event_id}")
        place = last.place if last else 0
        _log.warning("%s: the log ends at %d of the stream, not at %d", event_id, place, self._place)
        self._place = place
        return await self._bus.publish(subject(episode_id), payload, event_id, {_EXPECTED: str(place), **headers})
