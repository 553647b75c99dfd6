"""Shows an episode as it happens, from any replica and any point.

Invariants: a snapshot first, then the events behind `after_sequence` in their order, each once, then exactly one
`finished`; a watcher that leaves takes everything with it.
"""

from collections.abc import AsyncGenerator

from google.protobuf import timestamp_pb2
from wideseek.lead.v1 import lead_service_pb2 as pb

from wideseek_lead.adapters.log import LogReader
from wideseek_lead.adapters.store import EpisodeStore, reaching_nats
from wideseek_lead.core.episode import Episode
from wideseek_lead.errors import PastTheEnd
from wideseek_lead.wire import episode_to_wire, timestamp
from wideseek_lead.wire_events import shown


async def watch(
    store: EpisodeStore, reader: LogReader, episode_id: str, after: int
) -> AsyncGenerator[pb.WatchEpisodeResponse, None]:
    """The stream of `WatchEpisode`.

    Raises:
        EpisodeNotFound: there is no such episode.
        PastTheEnd: it has ended, and `after` is behind its last event.
        Unavailable: NATS is out of reach.
    """
    episode = await store.get(episode_id)
    _check(episode, after)
    yield pb.WatchEpisodeResponse(sequence=after, time=_now(), snapshot=episode_to_wire(episode))
    with reaching_nats():
        async with reader.bell(episode_id) as bell:
            place = 0
            while True:
                stored = await reader.after(episode_id, place)
                if stored is not None:
                    place = stored.place
                    if stored.event is not None and stored.event.sequence > after:
                        response = shown(stored.event)
                        if response is not None:
                            yield response
                    continue
                episode = await store.get(episode_id)
                if episode.ended:
                    break
                await bell.wait()
    _check(episode, after)
    end = timestamp(episode.end_time) if episode.end_time else None
    yield pb.WatchEpisodeResponse(sequence=episode.last_sequence, time=end, finished=episode_to_wire(episode))


def _check(episode: Episode, after: int) -> None:
    if episode.ended and after > episode.last_sequence:
        raise PastTheEnd(episode.episode_id, after, episode.last_sequence)


def _now() -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.GetCurrentTime()
    return stamp
