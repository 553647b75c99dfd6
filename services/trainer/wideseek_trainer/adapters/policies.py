"""The policy store and its registry: directories by fsspec URI, records and the announcement in the KV bucket `policy`.

Invariants: a version number is taken by creating its key, so no two updates share one; a directory that is complete is
never written again; a record with a manifest checksum is published, one without is only reserved.
"""

import asyncio
import tempfile
from pathlib import Path

from fsspec.core import url_to_fs
from wideseek.events.v1 import policy_pb2 as events
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_contract import policies as contract
from wideseek_kit import telemetry
from wideseek_kit.bus import Bus
from wideseek_kit.errors import FailedPrecondition, NotFound

from wideseek_trainer.adapters.records import Records, patiently
from wideseek_trainer.core.checkpoint import Progress

_PREFIX = "version."
_NOT_POLICY = (".safetensors", ".bin", ".pt", ".safetensors.index.json")


class PolicyRegistry:
    """Versions of the policy."""

    def __init__(self, bus: Bus, store_uri: str, keep: int) -> None:
        """Publish below `store_uri`; `keep` versions stay."""
        self._records = Records(bus, contract.BUCKET, history=16)
        self._store = store_uri.rstrip("/")
        self._keep = keep

    async def register_initial(self, directory: str) -> None:
        """Make the policy that inference starts with version 0, a full copy in the store, unless there is one.

        Raises:
            OSError: the directory cannot be read.
        """
        if await patiently(lambda: self._get(0)) is None:
            policy = pb.Policy(version=0, uri=self._uri(0))
            policy.create_time.GetCurrentTime()
            await self._write(policy, await asyncio.to_thread(_all_files, Path(directory)))

    async def reserve(self, run_id: str, step: int) -> int:
        """Take the next version for a step, or find the one taken for it before."""
        return await patiently(lambda: self._reserve(run_id, step))

    async def _reserve(self, run_id: str, step: int) -> int:
        while True:
            versions = await self._versions()
            for version in reversed(versions):
                policy = await self._get(version)
                if policy is not None and policy.run_id == run_id and policy.step == step:
                    return version
            version = max(versions, default=0) + 1
            reservation = pb.Policy(version=version, uri=self._uri(version), run_id=run_id, step=step)
            if await self._records.create(f"{_PREFIX}{version}", reservation.SerializeToString()):
                return version

    async def publish(self, run_id: str, progress: Progress, base: Path, weights: Path) -> None:
        """Write a version's directory and its record."""
        files = await asyncio.to_thread(_companions, base)
        files[contract.WEIGHTS] = await asyncio.to_thread(weights.read_bytes)
        version = progress.version
        policy = pb.Policy(version=version, uri=self._uri(version), run_id=run_id, step=progress.step)
        policy.metrics.update(progress.metrics)
        policy.create_time.FromMilliseconds(round(progress.time * 1000))
        await self._write(policy, files)

    async def _write(self, policy: pb.Policy, files: dict[str, bytes]) -> None:
        policy.manifest_sha256 = await asyncio.to_thread(_publish, policy.uri, policy.version, files)
        await patiently(lambda: self._records.put(f"{_PREFIX}{policy.version}", policy.SerializeToString()))

    async def announce(self, version: int) -> None:
        """Tell every inference replica to serve the version, then drop versions beyond those to keep."""
        await patiently(lambda: self._announce(version))
        for old in (await patiently(self._versions))[: -self._keep]:
            if old not in (0, version):
                await self._drop(old)

    async def _announce(self, version: int) -> pb.Policy:
        policy = await self.get(version)
        announcement = events.PolicyAnnouncement(
            schema_version=contract.SCHEMA_VERSION,
            version=version,
            uri=policy.uri,
            manifest_sha256=policy.manifest_sha256,
            traceparent=telemetry.traceparent(),
        )
        announcement.time.GetCurrentTime()
        await self._records.put(contract.CURRENT, announcement.SerializeToString())
        policy.current = True
        return policy

    async def _drop(self, version: int) -> None:
        await patiently(lambda: self._records.delete(f"{_PREFIX}{version}"))
        await asyncio.to_thread(_remove, self._uri(version))

    async def promote(self, version: int) -> pb.Policy:
        """Announce a version after a look at all its bytes.

        Raises:
            NotFound: POLICY_NOT_FOUND.
            FailedPrecondition: POLICY_DAMAGED.
        """
        policy = await self.get(version)
        try:
            await asyncio.to_thread(_verify, policy)
        except contract.DamagedPolicyError as error:
            raise FailedPrecondition(
                f"policy {version}: {error}", reason="POLICY_DAMAGED", version=version, uri=policy.uri
            ) from error
        return await self._announce(version)

    async def current(self) -> pb.Policy:
        """The announced version, or version 0 when none was announced.

        Raises:
            NotFound: POLICY_NOT_FOUND.
        """
        return await self.get(await self._current_version())

    async def get(self, version: int) -> pb.Policy:
        """A published version.

        Raises:
            NotFound: POLICY_NOT_FOUND.
        """
        policy = await self._get(version)
        if policy is None or not policy.manifest_sha256:
            raise NotFound(f"no policy version {version}", reason="POLICY_NOT_FOUND", version=version)
        policy.current = version == await self._current_version()
        return policy

    async def all(self) -> list[pb.Policy]:
        """All published versions, newest first."""
        current = await self._current_version()
        found = [await self._get(version) for version in reversed(await self._versions())]
        published = [policy for policy in found if policy is not None and policy.manifest_sha256]
        for policy in published:
            policy.current = policy.version == current
        return published

    async def _current_version(self) -> int:
        value = await self._records.get(contract.CURRENT)
        return contract.decode_announcement(value).version if value else 0

    async def _get(self, version: int) -> pb.Policy | None:
        value = await self._records.get(f"{_PREFIX}{version}")
        return None if value is None else pb.Policy.FromString(value)

    async def _versions(self) -> list[int]:
        keys = await self._records.keys()
        return sorted(int(key.removeprefix(_PREFIX)) for key in keys if key.startswith(_PREFIX))

    def _uri(self, version: int) -> str:
        return f"{self._store}/v{version:08d}"


def _all_files(directory: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()}
    files.pop(contract.MANIFEST, None)
    if "config.json" not in files:
        raise FileNotFoundError(f"{directory} holds no config.json: not a model directory")
    return {name: data for name, data in files.items() if not name.startswith(".")}


def _companions(base: Path) -> dict[str, bytes]:
    """What stands beside the weights: configuration, tokenizer, chat template."""
    return {name: data for name, data in _all_files(base).items() if not name.endswith(_NOT_POLICY)}


def _publish(uri: str, version: int, files: dict[str, bytes]) -> str:
    """Write the directory unless it is there already, for inference may be reading it."""
    sizes = {name: (contract.sha256(data), len(data)) for name, data in files.items()}
    manifest = contract.Manifest(version, sizes).to_json()
    filesystem, root = url_to_fs(uri)
    path = f"{root}/{contract.MANIFEST}"
    if filesystem.exists(path) and filesystem.cat_file(path) == manifest:
        return contract.sha256(manifest)
    return contract.publish_directory(uri, version, files)


def _verify(policy: pb.Policy) -> None:
    with tempfile.TemporaryDirectory(prefix="wideseek-policy-") as scratch:
        contract.fetch_directory(policy.uri, policy.manifest_sha256, Path(scratch))


def _remove(uri: str) -> None:
    filesystem, root = url_to_fs(uri)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)
