"""The episode log on JetStream: stream, subjects, event ids, codec.

Invariants: one writer an episode, sequences without gaps; the event id is the message id, so a repeated publication
is stored once; a reader meets an event of a newer schema without failing.
"""

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from wideseek.events.v1 import trajectory_pb2 as pb
from wideseek_kit.bus import Bus

SCHEMA_VERSION = 1
STREAM = "EPISODES"
SUBJECTS = "wideseek.episodes.v1.>"

#: KV bucket of episode resources: key is the episode id, value a lead.v1.Episode.
EPISODES_BUCKET = "episodes"
#: KV bucket of leases: key is the episode id; an entry that has expired means that the lead which ran it is gone.
LEASES_BUCKET = "episode-leases"
#: KV bucket of requests: key is the SHA-256 of a request_id, value the episode id and the request's fingerprint.
REQUESTS_BUCKET = "episode-requests"


class NewerSchemaError(ValueError):
    """An event was written by a newer version; it is kept, counted and passed over."""


def subject(episode_id: str) -> str:
    """The subject of an episode's log."""
    return f"wideseek.episodes.v1.{episode_id}"


def event_id(episode_id: str, agent_id: str, kind: str, turn: int = 0) -> str:
    """The id of an event, the same at every try."""
    return f"{episode_id}/{agent_id}/{kind}/{turn}"


def decode(payload: bytes) -> pb.TrajectoryEvent:
    """Read an event.

    Raises:
        NewerSchemaError: its schema is newer than this reader.
        google.protobuf.message.DecodeError: it is no event.
    """
    event = pb.TrajectoryEvent.FromString(payload)
    if event.schema_version > SCHEMA_VERSION:
        raise NewerSchemaError(f"{event.event_id}: schema {event.schema_version} > {SCHEMA_VERSION}")
    return event


async def ensure_stream(bus: Bus, *, max_bytes: int = 20 << 30, max_age_seconds: float = 7 * 86400.0) -> None:
    """Create the stream of episode logs unless it is there."""
    await bus.ensure_stream(
        StreamConfig(
            name=STREAM,
            subjects=[SUBJECTS],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            max_bytes=max_bytes,
            max_age=max_age_seconds,
            duplicate_window=3600,
        )
    )
