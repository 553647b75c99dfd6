import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.errors import KeyNotFoundError
from wideseek.events.v1 import policy_pb2 as pb
from wideseek_contract import policies
from wideseek_contract.policies import DamagedPolicyError, Manifest, fetch_directory, publish_directory, sha256
from wideseek_kit.bus import open_bus
from wideseek_kit.testing import nats_server

FILES = {"model.safetensors": bytes(range(256)) * 40, "config.json": b"{}", "empty.txt": b""}


@pytest.fixture
def policy(tmp_path: Path) -> tuple[Path, str]:
    source = tmp_path / "policy-7"
    return source, publish_directory(str(source), 7, FILES)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_directory_arrives_whole(policy: tuple[Path, str], tmp_path: Path, scheme: str) -> None:
    source, digest = policy
    manifest = fetch_directory(f"{scheme}{source}/", digest, tmp_path / "to" / "here")
    assert manifest.version == 7
    assert manifest.files == {name: (sha256(data), len(data)) for name, data in FILES.items()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "to" / "here").iterdir()} == FILES


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    (tmp_path / "p" / "config.json").mkdir(parents=True)  # stands in the way of the second file
    with pytest.raises(OSError, match=r"config\.json"):
        publish_directory(str(tmp_path / "p"), 1, FILES)
    assert not (tmp_path / "p" / "manifest.json").exists()


def test_a_cut_file_is_named_with_both_sizes(policy: tuple[Path, str], tmp_path: Path) -> None:
    source, digest = policy
    (source / "model.safetensors").write_bytes(FILES["model.safetensors"][:-1])
    with pytest.raises(DamagedPolicyError, match=r"model\.safetensors: 10239 bytes, the manifest says 10240"):
        fetch_directory(str(source), digest, tmp_path / "to")


def test_an_altered_file_is_named(policy: tuple[Path, str], tmp_path: Path) -> None:
    source, digest = policy
    altered = b"\xff" + FILES["model.safetensors"][1:]
    (source / "model.safetensors").write_bytes(altered)
    with pytest.raises(DamagedPolicyError, match=rf"model\.safetensors: SHA-256 is {sha256(altered)}"):
        fetch_directory(str(source), digest, tmp_path / "to")
    assert not (tmp_path / "to" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_a_missing_file_is_named(policy: tuple[Path, str], tmp_path: Path, name: str) -> None:
    source, digest = policy
    (source / name).unlink()
    with pytest.raises(DamagedPolicyError, match=f"{source}/{name} is missing"):
        fetch_directory(str(source), digest, tmp_path / "to")


def test_another_manifest_than_announced_is_refused(policy: tuple[Path, str], tmp_path: Path) -> None:
    source, digest = policy
    publish_directory(str(source), 8, {"config.json": b"{}"})
    with pytest.raises(DamagedPolicyError, match=f"announced was {digest}"):
        fetch_directory(str(source), digest, tmp_path / "to")
    assert not (tmp_path / "to").exists()
    assert fetch_directory(str(source), "", tmp_path / "to").version == 8


@pytest.mark.parametrize("name", ["../outside", "a/b", "/etc/x", ".hidden", ".."])
def test_a_file_name_that_leaves_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    manifest = Manifest(1, {name: (sha256(b"x"), 1)}).to_json()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "manifest.json").write_bytes(manifest)
    with pytest.raises(DamagedPolicyError, match="is not plain"):
        fetch_directory(str(tmp_path / "p"), sha256(manifest), tmp_path / "to")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"version": 1}',
        b'{"version": "x", "files": {}}',
        b'{"version": 1, "files": {"a": {"sha256": "0"}}}',
        b'{"version": 1, "files": []}',
        b'{"schema_version": 2, "version": 1, "files": {}}',
    ],
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(DamagedPolicyError, match=r"manifest\.json"):
        Manifest.from_json(text)


@given(
    st.integers(0, 2**63),
    st.dictionaries(
        st.text(min_size=1),
        st.tuples(st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(0)),
        max_size=4,
    ),
)
def test_a_manifest_survives_json(version: int, files: dict[str, tuple[str, int]]) -> None:
    manifest = Manifest(version, files)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert Manifest(version, dict(reversed(files.items()))).to_json() == manifest.to_json()
    assert json.loads(manifest.to_json())["schema_version"] == policies.SCHEMA_VERSION


def test_announcements_of_this_schema_are_read_and_newer_ones_named() -> None:
    told = pb.PolicyAnnouncement(schema_version=1, version=3, uri="file:///p")
    assert policies.decode_announcement(told.SerializeToString()) == told
    with pytest.raises(ValueError, match="schema 2 > 1"):
        policies.decode_announcement(pb.PolicyAnnouncement(schema_version=2).SerializeToString())
    with pytest.raises(ValueError, match="announcement"):
        policies.decode_announcement(b"\xff\xff")


async def test_the_bucket_keeps_what_was_announced() -> None:
    with nats_server() as server:
        async with open_bus(server.url, "test", on_up=policies.ensure_bucket) as bus:
            await bus.connected(10)
            await policies.ensure_bucket(bus)
            bucket = await bus.bucket(policies.BUCKET)
            with pytest.raises(KeyNotFoundError):
                await bucket.get(policies.CURRENT)
            for version in (1, 2):
                told = pb.PolicyAnnouncement(schema_version=1, version=version)
                await bucket.put(policies.CURRENT, told.SerializeToString())
            entry = await bucket.get(policies.CURRENT)
            assert policies.decode_announcement(entry.value or b"").version == 2
