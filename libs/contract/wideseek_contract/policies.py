"""Policy versions: the directory that holds one, and its announcement.

Invariants: manifest.json is written last and names the SHA-256 and size of every other file, so a directory without
it, or with a file that does not match, is not a policy; the announcement names the manifest's own SHA-256.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs
from google.protobuf.message import DecodeError
from wideseek.events.v1 import policy_pb2 as pb
from wideseek_kit.bus import Bus

SCHEMA_VERSION = 1
#: KV bucket; key "current" holds the announcement, "version.<n>" a trainer.v1.Policy.
BUCKET = "policy"
CURRENT = "current"
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"


class DamagedPolicyError(ValueError):
    """A policy directory is incomplete or does not match its checksums; the message names file and figures."""


@dataclass(frozen=True)
class Manifest:
    """What a policy directory holds: file name to (SHA-256 hex, bytes)."""

    version: int
    files: dict[str, tuple[str, int]]

    def to_json(self) -> bytes:
        """The bytes of manifest.json; the same for the same contents."""
        files = {name: {"sha256": digest, "bytes": size} for name, (digest, size) in sorted(self.files.items())}
        return json.dumps(
            {"schema_version": SCHEMA_VERSION, "version": self.version, "files": files}, indent=1
        ).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """Read manifest.json.

        Raises:
            DamagedPolicyError: it is not one, or its schema is newer than this reader.
        """
        try:
            data = json.loads(text)
            if int(data.get("schema_version", 1)) > SCHEMA_VERSION:
                raise ValueError(f"schema {data['schema_version']} > {SCHEMA_VERSION}")
            files = {str(name): (str(entry["sha256"]), int(entry["bytes"])) for name, entry in data["files"].items()}
            return cls(int(data["version"]), files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedPolicyError(f"{MANIFEST} cannot be read: {error!r}") from error


def sha256(data: bytes) -> str:
    """SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def publish_directory(uri: str, version: int, files: dict[str, bytes]) -> str:
    """Write a policy directory, manifest last; returns the manifest's SHA-256."""
    filesystem, root = url_to_fs(uri)
    filesystem.makedirs(root, exist_ok=True)
    for name, data in files.items():
        with filesystem.open(f"{root}/{name}", "wb") as target:
            target.write(data)
    manifest = Manifest(version, {name: (sha256(data), len(data)) for name, data in files.items()}).to_json()
    with filesystem.open(f"{root}/{MANIFEST}", "wb") as target:
        target.write(manifest)
    return sha256(manifest)


def fetch_directory(uri: str, manifest_sha256: str, target: Path) -> Manifest:
    """Copy a policy directory to the local `target` and check every byte.

    Raises:
        DamagedPolicyError: a file is missing, cut short or altered; names file, expected and found.
    """
    root = uri.rstrip("/")
    text = _read(f"{root}/{MANIFEST}")
    if manifest_sha256 and sha256(text) != manifest_sha256:
        raise DamagedPolicyError(f"{root}/{MANIFEST}: SHA-256 is {sha256(text)}, announced was {manifest_sha256}")
    manifest = Manifest.from_json(text)
    target.mkdir(parents=True, exist_ok=True)
    for name, (digest, size) in manifest.files.items():
        if "/" in name or name.startswith("."):
            raise DamagedPolicyError(f"{root}/{MANIFEST}: file name {name!r} is not plain")
        data = _read(f"{root}/{name}")
        if len(data) != size:
            raise DamagedPolicyError(f"{root}/{name}: {len(data)} bytes, the manifest says {size}")
        if sha256(data) != digest:
            raise DamagedPolicyError(f"{root}/{name}: SHA-256 is {sha256(data)}, the manifest says {digest}")
        (target / name).write_bytes(data)
    return manifest


def _read(path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as source:
            data: bytes = source.read()
            return data
    except FileNotFoundError as error:
        raise DamagedPolicyError(f"{path} is missing") from error


def decode_announcement(value: bytes) -> pb.PolicyAnnouncement:
    """Read an announcement.

    Raises:
        ValueError: its schema is newer than this reader, or it is no announcement.
    """
    try:
        announcement = pb.PolicyAnnouncement.FromString(value)
    except DecodeError as error:
        raise ValueError(f"{len(value)} bytes are no policy announcement: {error}") from error
    if announcement.schema_version > SCHEMA_VERSION:
        raise ValueError(f"policy announcement of schema {announcement.schema_version} > {SCHEMA_VERSION}")
    return announcement


async def ensure_bucket(bus: Bus) -> None:
    """Create the policy bucket unless it is there."""
    await bus.bucket(BUCKET, history=16)
