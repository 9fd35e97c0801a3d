"""safetensors files: what others read in them, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from worker.training.errors import CheckpointCorrupt, CheckpointUnreadable
from worker.training.tensor_file import DTYPES, read_tensors, write_tensors

TENSORS = {
    "1.weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "rng": torch.arange(5, dtype=torch.uint8),
    "scalar": torch.tensor(7.0),
    "empty": torch.empty(0, 3),
    "nan": torch.tensor([float("nan"), float("-inf")], dtype=torch.float64),
    "count": torch.tensor(3),
}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name].nan_to_num(9), other[name].nan_to_num(9))
        for name in one
    )


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written = write_tensors(path, TENSORS, {"step": 3})
    assert same(load_file(path), TENSORS)
    assert written.size == path.stat().st_size
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written = write_tensors(path, TENSORS, {"step": 3, "sums": [0.1, float("inf")]})
    tensors, document = read_tensors(path)
    assert same(tensors, TENSORS)
    assert document == {"step": 3, "sums": [0.1, float("inf")], "crc32": written.crc32}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.tensor([[0, 1, 1]]).to(dtype)
    write_tensors(tmp_path / "a", {"t": tensor}, {})
    assert same(load_file(tmp_path / "a"), {"t": tensor})


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS, {"step": 3})
    write_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), {"step": 3})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_memory_read_is_not_the_files(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS, {})
    tensors, _ = read_tensors(tmp_path / "a")
    with (tmp_path / "a").open("r+b") as file:
        file.write(bytes((tmp_path / "a").stat().st_size))
    assert same(tensors, TENSORS)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_one_flipped_bit_is_seen(at: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("flip") / "a"
    write_tensors(path, TENSORS, {"step": 3})
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + at % (len(content) - header)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(CheckpointCorrupt, match="CRC-32"):
        read_tensors(path)


@given(part=st.floats(0, 1, exclude_max=True))
def test_a_torn_file_is_refused(part: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("torn") / "a"
    write_tensors(path, TENSORS, {"step": 3})
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointCorrupt, match="cannot be read as a checkpoint"):
        read_tensors(path)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"t": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(CheckpointCorrupt, match="cannot be read as a checkpoint"):
        read_tensors(tmp_path / "foreign")


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_no_damage(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointUnreadable, match="cannot be read"):
        read_tensors(tmp_path / name)
