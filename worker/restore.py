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
    hashes = dict[FilePart, str]()
    for part, (blob_id, path) in _parts(checkpoint, folder, "from").items():
        try:
            hashes[part], intact = _download(engine, blob_id, path, pause)
        except NotFound:
            raise CheckpointDamaged(f"a part of its {part} is gone") from None
        if not intact:
            raise CheckpointDamaged(f"its {part} has another SHA-256 than was uploaded")
    return _files(checkpoint, folder, "from", hashes)


def fetch(
    engine: Engine, checkpoint: CheckpointRef, folder: Path, pause: Pause
) -> tuple[CheckpointFiles, dict[FilePart, bool]]:
    """Download a checkpoint as it is, and say of each file whether it has the SHA-256 that was uploaded.

    Raises NotFound where the checkpoint was deleted.
    """
    hashes, intact = dict[FilePart, str](), dict[FilePart, bool]()
    for part, (blob_id, path) in _parts(checkpoint, folder, "subject").items():
        try:
            hashes[part], intact[part] = _download(engine, blob_id, path, pause)
        except NotFound:  # a chunk is missing, or all of them with the blob
            write_through(engine, partial(blob_info, blob_id=blob_id), pause)
            intact[part] = False
    return _files(checkpoint, folder, "subject", hashes), intact


def _parts(checkpoint: CheckpointRef, folder: Path, name: str) -> dict[FilePart, tuple[int, Path]]:
    """The blob and the path of each file."""
    return {
        "model": (checkpoint.model_blob_id, folder / f"{name}-{checkpoint.id}.model.safetensors"),
        "state": (checkpoint.state_blob_id, folder / f"{name}-{checkpoint.id}.state.safetensors"),
    }


def _files(checkpoint: CheckpointRef, folder: Path, name: str, hashes: dict[FilePart, str]) -> CheckpointFiles:
    paths = {f"{part}_path": path for part, (_, path) in _parts(checkpoint, folder, name).items()}
    return CheckpointFiles.model_validate(paths | {f"{part}_sha256": value for part, value in hashes.items()})


def _download(engine: Engine, blob_id: int, path: Path, pause: Pause) -> tuple[str, bool]:
    """The SHA-256 of what was written to `path`, and whether it is the blob's."""
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
    return digest.hexdigest(), digest.digest() == info.sha256
