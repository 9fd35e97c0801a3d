"""Verify: a checkpoint against a replay of the job from the checkpoint before it.

The result, as JSON: {"equal", "exact", "reasons", "intact": {"model", "state"}, "unreadable": {part: why}, "ended",
"n_tensors", "n_different", "differences": [...], "rest": [...]}. `equal` says all in one: the replay gives every bit of
it, and its files are as they were stored. Where `exact` is false, this machine's bits may differ by themselves
(`reasons`), so a difference proves no damage.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any

from torch import Tensor

from worker.training.compare import Difference, difference, document_differences, pairs, same_kind
from worker.training.errors import CheckpointCorrupt
from worker.training.fingerprint import Fingerprint, differences
from worker.training.messages import (
    Checked,
    CheckpointFiles,
    Control,
    FilePart,
    Phase,
    Ready,
    Stopped,
    TrainerJob,
    Verify,
)
from worker.training.outbox import Emit
from worker.training.replay import Interrupted, replay
from worker.training.session import Session, prepare
from worker.training.state import Document, Tensors, model_tensors, state_tensors
from worker.training.tensor_file import read_tensors

MAX_DIFFERENCES = 100
"""Of those found so many are described; all are counted."""
_APART = {"fingerprint", "crc32", "model_crc32", "model"}
"""Of a checkpoint's document: compared by other means, but for `model`. Another version may describe otherwise how the
weights are used, or not at all."""


def verify(job: TrainerJob, task: Verify, emit: Emit, control: Control) -> None:
    """The last message is Checked, or Stopped. Raises TrainingError."""
    session, _ = prepare(job, emit)
    reasons = _reasons(session.fingerprint, task)
    emit(Ready(session.fingerprint, job.resolved.n_parameters, session.step, reasons))
    try:
        ended = replay(job, session, emit, control, to_step=task.step)
    except Interrupted as interrupted:
        emit(Stopped(interrupted.kind, interrupted.step))
        return
    emit(Phase("compare"))
    if task.final:
        session.recorder.close_window(session.step)
        session.recorder.take()
    emit(Checked(session.step, {"exact": not reasons, "reasons": reasons, **_judge(task, session, ended)}))


def _reasons(here: Fingerprint, task: Verify) -> list[str]:
    then = [{key: value for key, value in found.items() if key != "differences"} for found in task.trained_by]
    return list(dict.fromkeys(reason for found in then for reason in differences(here, found)))


def _judge(task: Verify, session: Session, ended: str | None) -> dict[str, Any]:
    model, aliases = model_tensors(session.model)
    replayed: dict[FilePart, tuple[Tensors, Document]] = {
        "model": (model, {"aliases": aliases}),
        "state": (state_tensors(session.model, session.optimizer), json.loads(json.dumps(session.document()))),
    }
    unreadable, found, rest, n_tensors = dict[str, str](), list[dict[str, Any]](), list[str](), 0
    for part, (tensors, document) in replayed.items():
        n_tensors += len(tensors)
        try:
            stored, stored_document = _read(task.subject, part)
        except CheckpointCorrupt as error:
            unreadable[part] = str(error.__cause__ or error)
            continue
        found += _different_tensors(part, stored, tensors)
        rest += document_differences(_without(stored_document), _without(document), part)
    equal = ended is None and not (unreadable or found or rest) and all(task.intact.values())
    return {
        "equal": equal,
        "intact": task.intact,
        "unreadable": unreadable,
        "ended": ended,
        "n_tensors": n_tensors,
        "n_different": len(found),
        "differences": found[:MAX_DIFFERENCES],
        "rest": rest[:MAX_DIFFERENCES],
    }


def _read(files: CheckpointFiles, part: FilePart) -> tuple[Tensors, Document]:
    path, sha256 = {
        "model": (files.model_path, files.model_sha256),
        "state": (files.state_path, files.state_sha256),
    }[part]
    tensors, document = read_tensors(path, sha256=sha256, check_crc=False)
    if not isinstance(document, dict):
        raise CheckpointCorrupt("its document is no JSON object")
    return tensors, document


def _without(document: Document) -> Document:
    """Of a watched streak not the checkpoint before it either: a replay takes none."""
    kept = {key: value for key, value in document.items() if key not in _APART}
    if watch := kept.get("watch"):
        kept["watch"] = {name: streak | {"good": None} for name, streak in watch.items()}
    return kept


def _different_tensors(part: FilePart, stored: Tensors, replayed: Tensors) -> list[dict[str, Any]]:
    found = []
    for name, one, other in pairs(stored, replayed):
        if (problem := _problem(one, other)) is not None:
            found.append({"tensor": f"{part}/{name}", **problem})
    return found


def _problem(one: Tensor | None, other: Tensor | None) -> dict[str, Any] | None:
    """What is wrong with the stored tensor `one`; None where it is the replayed one to the bit."""
    if one is None:
        return {"problem": "missing"}
    if other is None:
        return {"problem": "unexpected"}
    if not same_kind(one, other):
        return {"problem": "kind", "stored": _kind(one), "replayed": _kind(other)}
    found = difference(one, other)
    return None if found is None else _values(found, list(one.shape))


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _values(found: Difference, shape: list[int]) -> dict[str, Any]:
    place, rest = [], found.first
    for axis in range(len(shape)):
        at, rest = divmod(rest, prod(shape[axis + 1 :]))
        place.append(at)
    return {
        "problem": "values",
        "n_elements": found.n_elements,
        "n_different": found.n_different,
        "first_index": place,
        "stored": found.values[0],
        "replayed": found.values[1],
        "largest_difference": found.largest,
    }
