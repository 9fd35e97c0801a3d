"""The checkpoint that an attempt starts from: from the database to two files in its scratch folder, hashes checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from jobs.blobs import blob_info, read_range
from jobs.lifecycle.checkpoints import CheckpointRef
from worker.training.messages import CheckpointFiles
from worker.writes import FIRST_PAUSE_SECONDS, is_outage, write_through

Pause = Callable[[float], None]


class CheckpointDamaged(Exception):
    """What the database gave is not what was uploaded."""


def restore(engine: Engine, checkpoint: CheckpointRef, folder: Path, pause: Pause) -> CheckpointFiles:
    """Download both files into `folder`, over an outage of the database too.

    `pause` is called with seconds to wait, 0 after each chunk, and may raise to give up. Raises CheckpointDamaged
    where a file's SHA-256 is another.
    """
    files = CheckpointFiles(model_path=folder / "from.model.safetensors", state_path=folder / "from.state.safetensors")
    _download(engine, checkpoint.model_blob_id, files.model_path, pause)
    _download(engine, checkpoint.state_blob_id, files.state_path, pause)
    return files


def _download(engine: Engine, blob_id: int, path: Path, pause: Pause) -> None:
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
    if digest.digest() != info.sha256:
        raise CheckpointDamaged(f"blob {blob_id} has another SHA-256 than was uploaded")
