"""Episodes, requests and leases in NATS key-value buckets.

Invariants: of two replicas that make the same episode exactly one succeeds; an ended episode never changes again; an
episode that runs stands in the bucket of running ones until its end is stored, so one whose lease has expired is found
without reading them all.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_contract.episodes import EPISODES_BUCKET, LEASES_BUCKET, REQUESTS_BUCKET, ensure_stream
from wideseek_kit.bus import AWAY, Bus, heed_cancellation
from wideseek_kit.errors import Unavailable

from wideseek_lead.core.episode import Episode, State
from wideseek_lead.errors import EpisodeNotFound, RequestIdReused
from wideseek_lead.wire import episode_from_wire, episode_to_wire

RUNNING_BUCKET = "episodes-running"
_ID = re.compile(r"[0-9a-z]{1,64}")
_LARGEST = 1_000_000
_KEPT_CHARS = 100_000
_SCAN = 2000
_AT_ONCE = 32


@contextmanager
def reaching_nats() -> Iterator[None]:
    """Turn what a call raises while NATS is away into `Unavailable`; a cancellation in the meantime is not lost."""
    try:
        yield
        heed_cancellation()
    except AWAY as error:
        fault = str(error) or type(error).__name__
        raise Unavailable(f"NATS is out of reach: {fault}", reason="NATS_UNAVAILABLE") from error


class EpisodeStore:
    """The buckets. `open` must have run before anything else; `connected` waits for that."""

    def __init__(self, *, lease_ttl: float, retention: float, log_bytes: int) -> None:
        """Leases last `lease_ttl` seconds, ended episodes `retention` seconds, logs take at most `log_bytes`."""
        self._lease_ttl = lease_ttl
        self._retention = retention
        self._log_bytes = log_bytes
        self._bus: Bus
        self._episodes: KeyValue
        self._requests: KeyValue
        self._leases: KeyValue
        self._running: KeyValue

    async def open(self, bus: Bus) -> None:
        """Make sure that stream and buckets are there."""
        self._bus = bus
        await ensure_stream(bus, max_bytes=self._log_bytes, max_age_seconds=self._retention)
        self._episodes = await bus.bucket(EPISODES_BUCKET, ttl=self._retention)
        self._requests = await bus.bucket(REQUESTS_BUCKET, ttl=self._retention)
        self._leases = await bus.bucket(LEASES_BUCKET, ttl=self._lease_ttl)
        self._running = await bus.bucket(RUNNING_BUCKET)

    async def claimed(self, request_id: str, fingerprint: str) -> str | None:
        """The id of the episode that `request_id` stands for, if it was claimed.

        Raises:
            RequestIdReused: it was claimed with other contents.
            Unavailable: NATS is out of reach.
        """
        with reaching_nats():
            try:
                entry = await self._requests.get(_request_key(request_id))
            except KeyNotFoundError:
                return None
        claimed, contents = json.loads(entry.value or b"[]")
        if contents != fingerprint:
            raise RequestIdReused(request_id, claimed)
        return str(claimed)

    async def claim(self, request_id: str, fingerprint: str, episode_id: str) -> str:
        """The id of the episode that `request_id` stands for from now on: `episode_id`, unless another was faster.

        Raises:
            RequestIdReused: it was claimed with other contents.
            Unavailable: NATS is out of reach.
        """
        with reaching_nats():
            try:
                await self._requests.create(_request_key(request_id), json.dumps([episode_id, fingerprint]).encode())
                return episode_id
            except KeyWrongLastSequenceError:
                pass  # claimed before, or between the caller's look and now
        return await self.claimed(request_id, fingerprint) or episode_id

    async def create(self, episode: Episode, owner: str) -> bool:
        """Store a new episode with its lease; false when it is there already.

        Raises:
            Unavailable: NATS is out of reach.
        """
        episode_id = episode.episode_id
        with reaching_nats():
            await self._leases.put(episode_id, owner.encode())
            await self._running.put(episode_id, owner.encode())
            try:
                await self._episodes.create(episode_id, _pack(episode))
            except KeyWrongLastSequenceError:
                return False
            return True

    async def get(self, episode_id: str) -> Episode:
        """An episode as last stored.

        Raises:
            EpisodeNotFound: there is none.
            Unavailable: NATS is out of reach.
        """
        found = await self.find(episode_id)
        if found is None:
            raise EpisodeNotFound(episode_id)
        return found

    async def find(self, episode_id: str) -> Episode | None:
        """An episode as last stored, if there is one.

        Raises:
            Unavailable: NATS is out of reach.
        """
        entry = await self._entry(episode_id)
        return None if entry is None else _unpack(entry)

    async def save(self, episode: Episode) -> bool:
        """Store an episode unless its end is stored already; tells whether it was.

        Raises:
            Unavailable: NATS is out of reach.
        """
        while True:
            entry = await self._entry(episode.episode_id)
            if entry is None or _unpack(entry).ended:
                return False
            with reaching_nats():
                try:
                    await self._episodes.update(episode.episode_id, _pack(episode), last=entry.revision)
                    return True
                except KeyWrongLastSequenceError:
                    continue  # another wrote in between: look again

    async def renew(self, episode_id: str, owner: str) -> None:
        """Renew a lease.

        Raises:
            Unavailable: NATS is out of reach.
        """
        with reaching_nats():
            await self._leases.put(episode_id, owner.encode())

    async def leased(self, episode_id: str) -> bool:
        """Whether an episode has a lease now."""
        with reaching_nats():
            try:
                await self._leases.get(episode_id)
                return True
            except KeyNotFoundError:
                return False

    async def release(self, episode_id: str) -> None:
        """Take an ended episode out of the running ones, its lease with it."""
        with reaching_nats():
            for bucket in (RUNNING_BUCKET, LEASES_BUCKET):
                await self._bus.jetstream.purge_stream(f"KV_{bucket}", subject=f"$KV.{bucket}.{episode_id}")

    async def orphans(self) -> list[str]:
        """Running episodes without a lease, oldest first."""
        with reaching_nats():
            running = await self._keys(RUNNING_BUCKET)
            leased = await self._keys(LEASES_BUCKET)
        return sorted(running - leased)

    async def list(self, size: int, before: str, state: State | None) -> tuple[list[Episode], str]:
        """Up to `size` episodes older than `before` (empty: from the newest), and where the next page starts.

        A call looks at a bounded number of episodes, so a page may be short though there are more.
        """
        with reaching_nats():
            keys = sorted(await self._keys(EPISODES_BUCKET), reverse=True)
        keys = [key for key in keys if not before or key < before]
        page: list[Episode] = []
        for start in range(0, min(len(keys), _SCAN), _AT_ONCE):
            chunk = keys[start : start + _AT_ONCE]
            for key, episode in zip(chunk, await asyncio.gather(*map(self.find, chunk)), strict=True):
                if episode is not None and state in (None, episode.state):
                    page.append(episode)
                if len(page) == size:
                    return page, key if key != keys[-1] else ""
        return page, keys[_SCAN - 1] if len(keys) > _SCAN else ""

    async def _entry(self, episode_id: str) -> KeyValue.Entry | None:
        if not _ID.fullmatch(episode_id):
            return None  # never made here, and no key of a bucket
        with reaching_nats():
            try:
                return await self._episodes.get(episode_id)
            except KeyNotFoundError:
                return None

    async def _keys(self, bucket: str) -> set[str]:
        info = await self._bus.jetstream.stream_info(f"KV_{bucket}", subjects_filter=">")
        return {subject.rsplit(".", 1)[1] for subject in info.state.subjects or {}}


def _request_key(request_id: str) -> str:
    return hashlib.sha256(request_id.encode()).hexdigest()


def _pack(episode: Episode) -> bytes:
    message = episode_to_wire(episode)
    size = message.ByteSize()
    if size > _LARGEST:  # NATS takes 1 MB; the log has the whole text, by reference if need be
        del message.answer.rows[:]
        message.answer.text = message.answer.text[:_KEPT_CHARS]
        message.answer.problems[:] = [
            f"the episode takes {size:,} bytes, at most {_LARGEST:,} are kept: the text is cut, the rows are left out"
        ]
    payload: bytes = message.SerializeToString()
    return payload


def _unpack(entry: KeyValue.Entry) -> Episode:
    return episode_from_wire(pb.Episode.FromString(entry.value or b""))
