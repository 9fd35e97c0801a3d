"""Taking a checkpoint: a memcpy into buffers that are kept, then a thread writes them while training goes on."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import nn
from torch.optim import Optimizer

from worker.training.errors import ScratchFull, ScratchUnusable
from worker.training.messages import Checkpoint, CheckpointKind, Message, Summary
from worker.training.state import Document, Tensors, model_tensors, state_tensors
from worker.training.tensor_file import write_tensors

SPARE_BYTES = 1 << 20


@dataclass(frozen=True)
class _Snapshot:
    """Copies of all that goes into the two files."""

    model: Tensors
    aliases: dict[str, str]
    state: Tensors
    document: Document
    step: int
    kind: CheckpointKind
    summary: Summary
    needed: int | None


class Checkpoints:
    """Writes one checkpoint at a time; use it as a context manager, which waits for the last one."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scratch_dir: Path,
        emit: Callable[[Message], None],
        *,
        architecture: Document | None = None,
    ) -> None:
        """`architecture` goes into the document of each file of weights, under "model"."""
        self._model, self._optimizer = model, optimizer
        self._scratch_dir = scratch_dir
        self._emit = emit
        self._described = {} if architecture is None else {"model": architecture}
        self._buffers = Tensors()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def save(
        self, document: Document, *, step: int, kind: CheckpointKind, summary: Summary, needed: int | None = None
    ) -> None:
        """Take a checkpoint of now; its message is emitted once both files are complete. `needed`: see the message.

        Waits for the one before. Raises ScratchFull if there is no room, or was none for the one before, and
        ScratchUnusable if the folder could not be written for another reason.
        """
        self.wait()
        model, aliases = model_tensors(self._model)
        state = state_tensors(self._model, self._optimizer)
        self._check_space(model, state)
        copies = self._copy("model", model), self._copy("state", state)
        snapshot = _Snapshot(copies[0], aliases, copies[1], document | {"step": step}, step, kind, summary, needed)
        self._writing = self._thread.submit(self._write, snapshot)

    def wait(self) -> None:
        """Return when no checkpoint is being written. Raises what went wrong with it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _copy(self, part: str, tensors: Tensors) -> Tensors:
        copies = Tensors()
        for name, tensor in tensors.items():
            buffer = self._buffers.get(f"{part}/{name}")
            if buffer is None:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
                self._buffers[f"{part}/{name}"] = buffer
            copies[name] = buffer.copy_(tensor)
        return copies

    def _check_space(self, *parts: Tensors) -> None:
        needed = sum(tensor.nbytes for part in parts for tensor in part.values()) + SPARE_BYTES
        try:
            free = shutil.disk_usage(self._scratch_dir).free
        except OSError as error:
            raise self._failed(error) from error
        if free < needed:
            raise ScratchFull(f"a checkpoint needs {needed:,} bytes in {self._scratch_dir}; {free:,} are free")

    def _failed(self, error: OSError) -> ScratchFull | ScratchUnusable:
        """Whatever the system says: the machine is at fault, not the job."""
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return ScratchFull(f"a checkpoint did not fit in {self._scratch_dir}: {error}")
        return ScratchUnusable(f"a checkpoint could not be written in {self._scratch_dir}: {error}")

    def _write(self, snapshot: _Snapshot) -> None:
        model_path = self._scratch_dir / f"step-{snapshot.step}-model.safetensors"
        state_path = self._scratch_dir / f"step-{snapshot.step}-state.safetensors"
        try:
            model = write_tensors(model_path, snapshot.model, {"aliases": snapshot.aliases} | self._described)
            state = write_tensors(state_path, snapshot.state, snapshot.document | {"model_crc32": model.crc32})
        except OSError as error:
            raise self._failed(error) from error
        self._emit(
            Checkpoint(
                step=snapshot.step,
                kind=snapshot.kind,
                model_path=str(model_path),
                state_path=str(state_path),
                model_size=model.size,
                state_size=state.size,
                model_sha256=model.sha256,
                state_sha256=state.sha256,
                summary=snapshot.summary,
                needed=snapshot.needed,
            )
        )
