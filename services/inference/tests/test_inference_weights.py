"""Weight files, whole and damaged."""

import json
import struct
from pathlib import Path

import pytest
from wideseek_contract.policies import WEIGHTS
from wideseek_inference.adapters.weights import PolicyStore, make_directory, read_layout
from wideseek_inference.core.layout import Tensor, WeightsRejectedError
from wideseek_inference.core.swap import Wanted
from wideseek_inference.testing import Tiny


def test_the_layout_of_a_model(tiny: Tiny) -> None:
    layout = read_layout(tiny.a)
    assert layout["model.norm.weight"] == Tensor("F32", (64,))
    assert layout == read_layout(tiny.b)


def test_a_version_is_fetched_and_discarded(tiny: Tiny, tmp_path: Path) -> None:
    store = PolicyStore(make_directory(str(tmp_path)))
    fetched = store.fetch(tiny.wanted(tiny.b, 101))
    assert fetched.version == 101
    assert (fetched.directory / WEIGHTS).read_bytes() == (tiny.b / WEIGHTS).read_bytes()
    store.discard(fetched.directory)
    store.discard(tiny.b)
    assert not fetched.directory.exists()
    assert (tiny.b / WEIGHTS).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not safetensors"),
        (struct.pack("<Q", 1 << 40), "a header of 1099511627776 bytes in a file of 8"),
        (struct.pack("<Q", 2) + b"[]", "is not safetensors"),
        (struct.pack("<Q", 7) + b"{'a':1}", "is not safetensors"),
    ],
)
def test_what_is_not_safetensors_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(WeightsRejectedError, match=message):
        read_layout(tmp_path)


def test_a_file_shorter_than_its_header_says_is_rejected(tiny: Tiny, tmp_path: Path) -> None:
    whole = (tiny.a / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(WeightsRejectedError, match=f"has {len(whole) - 100} bytes, its header says {len(whole)}"):
        read_layout(tmp_path)


def test_a_damaged_version_leaves_nothing_behind(tiny: Tiny, tmp_path: Path) -> None:
    wanted = tiny.wanted(tiny.b, 102)
    file = Path(wanted.uri) / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsRejectedError, match="SHA-256 is"):
        PolicyStore(tmp_path).fetch(wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_that_was_not_announced_is_rejected(tiny: Tiny, tmp_path: Path) -> None:
    wanted = tiny.wanted(tiny.b, 103)
    with pytest.raises(WeightsRejectedError, match="announced was 00"):
        PolicyStore(tmp_path).fetch(Wanted(103, wanted.uri, "00"))


def test_a_version_without_weights_is_rejected(tiny: Tiny, tmp_path: Path) -> None:
    wanted = tiny.publish({"notes.txt": json.dumps({}).encode()}, 104)
    with pytest.raises(WeightsRejectedError, match="holds no safetensors file"):
        PolicyStore(tmp_path).fetch(wanted)
    assert list(tmp_path.iterdir()) == []
