"""safetensors files, written as a stream and checked when read. Nothing is pickled.

The format (https://huggingface.co/docs/safetensors) is an 8-byte little-endian length, a JSON header of that length
and the tensors' bytes. `safetensors.save` would make a whole copy in memory first. Our header carries under "traind"
a JSON document and the CRC-32 of the tensors' bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.training.errors import CheckpointCorrupt, CheckpointUnreadable

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Written:
    """A complete file: its size in bytes, its SHA-256 and the CRC-32 of its tensors' bytes."""

    size: int
    sha256: str
    crc32: int


def write_tensors(path: Path, tensors: dict[str, Tensor], document: dict[str, Any]) -> Written:
    """Write contiguous CPU tensors and a JSON document. Equal contents give equal bytes. Raises OSError."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    parts = [_bytes(tensor) for _, tensor in ordered]
    crc32 = 0
    for part in parts:
        crc32 = zlib.crc32(part, crc32)
    header = _header(ordered, document | {"crc32": crc32})
    digest, size = hashlib.sha256(header), len(header)
    with path.open("wb") as file:
        file.write(header)
        for part in parts:
            file.write(part)
            digest.update(part)
            size += part.nbytes
    return Written(size, digest.hexdigest(), crc32)


def read_tensors(
    path: Path, *, sha256: str | None = None, check_crc: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the document of a file that `write_tensors` made.

    Raises CheckpointCorrupt, or CheckpointUnreadable where the machine is at fault and not the file: also where the
    file no longer has this hash. Without `check_crc` also of a file whose tensors were damaged since, if it still is
    such a file.
    """
    try:
        if sha256 is not None:
            _check_copy(path, sha256)
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["traind"])
            if check_crc:
                _check_crc(path, document["crc32"])
            # clone: get_tensor's memory is the mapped file's, unaligned and gone with it
            return {name: file.get_tensor(name).clone() for name in file.keys()}, document  # noqa: SIM118, no dict
    except OSError as error:
        raise CheckpointUnreadable(f"{path} cannot be read: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{path} cannot be read as a checkpoint: {error}") from error


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's own memory."""
    if tensor.numel() == 0:
        return memoryview(b"")
    own: NDArray[np.uint8] = tensor.view(-1).view(torch.uint8).numpy()
    return own.data


def _header(ordered: list[tuple[str, Tensor]], document: dict[str, Any]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", "traind": json.dumps(document, separators=(",", ":"))}}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _check_copy(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise CheckpointUnreadable(f"{path} is not what was downloaded any more: this machine's disk is in trouble")


def _check_crc(path: Path, expected: int) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 8 + int.from_bytes(content[:8], "little")
        with memoryview(content) as view, view[start:] as tensors:
            found = zlib.crc32(tensors)
    if found != expected:
        raise ValueError(f"the CRC-32 of its tensors is {found:08x}, not {expected:08x}")
