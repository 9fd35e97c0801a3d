"""A checkpoint from the database to two files in the scratch folder, hashes checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from jobs.blobs import blob_info, read_range
from jobs.errors import NotFound
from jobs.lifecycle.checkpoints import CheckpointRef
from worker.training.messages import CheckpointFiles, FilePart
from worker.writes import FIRST_PAUSE_SECONDS, is_outage, write_through

Pause = Callable[[float], None]


class CheckpointDamaged(Exception):
    """What the database gave is not what was uploaded."""


def restore(engine: Engine, checkpoint: CheckpointRef, folder: Path, pause: Pause) -> CheckpointFiles:
    """Download the checkpoint that an attempt starts from into `folder`, over an outage of the database too.

    `pause` is called with seconds to wait, 0 after each chunk, and may raise to give up. Raises CheckpointDamaged
    where a file's SHA-256 is another, or a part of it is gone.
    """
    files = _files(folder, f"from-{checkpoint.id}")
    for part, (blob_id, path) in _parts(checkpoint, files).items():
        try:
            intact = _download(engine, blob_id, path, pause)
        except NotFound:
            raise CheckpointDamaged(f"a part of its {part} is gone") from None
        if not intact:
            raise CheckpointDamaged(f"its {part} has another SHA-256 than was uploaded")
    return files


def is_as_stored(engine: Engine, checkpoint: CheckpointRef, files: CheckpointFiles, pause: Pause) -> bool:
    """Whether the files of `restore` still have the SHA-256 that was uploaded: this machine may have changed them."""
    for blob_id, path in _parts(checkpoint, files).values():
        try:
            info = write_through(engine, partial(blob_info, blob_id=blob_id), pause)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except (NotFound, OSError):
            return False
        if found != info.sha256:
            return False
    return True


def fetch(
    engine: Engine, checkpoint: CheckpointRef, folder: Path, pause: Pause
) -> tuple[CheckpointFiles, dict[FilePart, bool]]:
    """Download a checkpoint as it is, and say of each file whether it has the SHA-256 that was uploaded.

    Raises NotFound where the checkpoint was deleted.
    """
    files = _files(folder, "subject")
    intact = dict[FilePart, bool]()
    for part, (blob_id, path) in _parts(checkpoint, files).items():
        try:
            intact[part] = _download(engine, blob_id, path, pause)
        except NotFound:  # a chunk is missing, or all of them with the blob
            write_through(engine, partial(blob_info, blob_id=blob_id), pause)
            intact[part] = False
    return files, intact


def _files(folder: Path, name: str) -> CheckpointFiles:
    paths = {f"{part}_path": folder / f"{name}.{part}.safetensors" for part in ("model", "state")}
    return CheckpointFiles.model_validate(paths)


def _parts(checkpoint: CheckpointRef, files: CheckpointFiles) -> dict[FilePart, tuple[int, Path]]:
    return {
        "model": (checkpoint.model_blob_id, files.model_path),
        "state": (checkpoint.state_blob_id, files.state_path),
    }


def _download(engine: Engine, blob_id: int, path: Path, pause: Pause) -> bool:
    """Whether what was written to `path` has the blob's SHA-256."""
    info = write_through(engine, partial(blob_info, blob_id=blob_id), pause)
    digest = hashlib.sha256()
    done = 0
    with path.open("xb") as file:
        while done < info.size:
            try:
                for data in read_range(engine, blob_id, done, info.size):
                    digest.update(data)
                    done += file.write(data)
                    pause(0)
            except DBAPIError as error:
                if not is_outage(error):
                    raise
                pause(FIRST_PAUSE_SECONDS)
    return digest.digest() == info.sha256
