"""Weight files: their layout, and policy versions fetched into a local directory.

Invariants: a fetched version is verified against its manifest before anyone sees it; only directories that were made
here are ever deleted.
"""

import json
import shutil
import struct
import tempfile
from pathlib import Path

from wideseek_contract.policies import DamagedPolicyError, fetch_directory

from wideseek_inference.core.layout import Tensor, WeightsRejectedError
from wideseek_inference.core.swap import Fetched, Wanted

_MEMORY = Path("/dev/shm")
_MAX_HEADER = 100 << 20


def make_directory(configured: str) -> Path:
    """A directory of this process for fetched versions: below `configured`, else in memory, else a temporary one."""
    parent = Path(configured) if configured else (_MEMORY if _MEMORY.is_dir() else None)
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="wideseek-weights-", dir=parent))


def read_layout(directory: Path) -> dict[str, Tensor]:
    """The tensors of all safetensors files of a directory.

    Raises:
        WeightsRejectedError: there is none, or one is cut short or not safetensors.
    """
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise WeightsRejectedError(f"{directory} holds no safetensors file")
    return {name: tensor for file in files for name, tensor in _read_file(file).items()}


def _read_file(path: Path) -> dict[str, Tensor]:
    size = path.stat().st_size
    try:
        with path.open("rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            if length > min(size, _MAX_HEADER):
                raise WeightsRejectedError(f"{path.name}: a header of {length} bytes in a file of {size}")
            header = json.loads(source.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        tensors = {name: Tensor(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsRejectedError(f"{path.name} is not safetensors: {error!r}") from error
    if end != size:
        raise WeightsRejectedError(f"{path.name} has {size} bytes, its header says {end}")
    return tensors


class PolicyStore:
    """Implements `core.swap.Store` over the contract's policy directories."""

    def __init__(self, root: Path) -> None:
        """Keep fetched versions below `root`."""
        self._root = root

    def fetch(self, wanted: Wanted) -> Fetched:
        """Copy and verify a version."""
        target = Path(tempfile.mkdtemp(prefix=f"{wanted.version}-", dir=self._root))
        try:
            manifest = fetch_directory(wanted.uri, wanted.manifest_sha256, target)
            return Fetched(manifest.version, target, read_layout(target))
        except DamagedPolicyError as error:
            self.discard(target)
            raise WeightsRejectedError(str(error)) from error
        except BaseException:
            self.discard(target)
            raise

    def discard(self, directory: Path) -> None:
        """Delete a fetched version; any other directory is left alone."""
        if directory.parent == self._root:
            shutil.rmtree(directory, ignore_errors=True)
