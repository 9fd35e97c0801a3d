"""The checkpoint that an attempt starts from: from the database to two files in its scratch folder, hashes checked."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from jobs.blobs import blob_info, read_range
from jobs.lifecycle.checkpoints import CheckpointRef
from worker.training.messages import CheckpointFiles
from worker.verdict import Verdict
from worker.writes import FIRST_PAUSE_SECONDS, is_outage, write_through


class CheckpointDamaged(Exception):
    """What the database gave is not what was uploaded."""


def restore(engine: Engine, checkpoint: CheckpointRef, folder: Path, verdict: Verdict) -> CheckpointFiles:
    """Download both files into `folder`, over an outage of the database too.

    Raises CheckpointDamaged where a file's SHA-256 is another, Decided as soon as the verdict is.
    """
    files = CheckpointFiles(model_path=folder / "from.model.safetensors", state_path=folder / "from.state.safetensors")
    _download(engine, checkpoint.model_blob_id, files.model_path, verdict)
    _download(engine, checkpoint.state_blob_id, files.state_path, verdict)
    return files


def _download(engine: Engine, blob_id: int, path: Path, verdict: Verdict) -> None:
    info = write_through(engine, partial(blob_info, blob_id=blob_id), verdict.pause)
    digest = hashlib.sha256()
    done = 0
    with path.open("xb") as file:
        while done < info.size:
            try:
                for data in read_range(engine, blob_id, done, info.size):
                    verdict.check()
                    digest.update(data)
                    done += file.write(data)
            except DBAPIError as error:
                if not is_outage(error):
                    raise
                verdict.pause(FIRST_PAUSE_SECONDS)
    if digest.digest() != info.sha256:
        raise CheckpointDamaged(f"blob {blob_id} has another SHA-256 than was uploaded")
