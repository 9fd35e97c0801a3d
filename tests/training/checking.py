"""Checks run in this process, and damage done to checkpoint files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training.scenario import Trained, files, trainer_job
from worker.training.messages import Audit, Checked, CheckpointFiles, Ready, Verify

PARTS: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [16], "dropout": 0.2},
    "optimizer": {"name": "adam", "lr": 3e-3},
    "training": {"steps": 40, "batch_size": 60, "log_every": 7, "eval_every": 11, "checkpoint_every": 17, "seed": 5},
}
"""Checkpoints at 17, 34 and 40, none at a window's end or at an evaluation but the last."""


def checked(
    folder: Path,
    whole: Trained,
    step: int,
    *,
    start: int | None = None,
    subject: CheckpointFiles | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What a verify of `step` from `start` finds; `subject` are its files where they are not as they were."""
    parts = PARTS | more.pop("parts", {})
    origin = None if start is None else files(whole.checkpoint(start))
    saved = whole.checkpoint(step)
    known = {"step": step, "final": saved.kind == "final", "intact": {"model": True, "state": True}}
    known |= {"subject": subject or files(saved), "trained_by": [whole.all(Ready)[0].fingerprint]}
    job = trainer_job(folder / "check", origin, **parts)
    return result(Trained(job.model_copy(update={"check": Verify.model_validate(known | more)})))


def audited(folder: Path, steps: int, **parts: Any) -> dict[str, Any]:
    job = trainer_job(folder / "audit", **(PARTS | parts))
    return result(Trained(job.model_copy(update={"check": Audit(steps=steps)})))


def result(run: Trained) -> dict[str, Any]:
    assert isinstance(run.end, Checked), run.end
    return run.end.result


def offset(data: bytes, tensor: str) -> int:
    """Where a tensor's bytes begin in a safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return 8 + length + int(json.loads(data[8 : 8 + length])[tensor]["data_offsets"][0])


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
