"""The same specs trained by `python -m worker.training`: no service, no interruption. What jobs are compared with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.specs import SPECS, Spec

AT_ONCE = 2
TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Reference:
    """What a run leaves behind: {step: (SHA-256 of the weights, of the rest)}, {metric: [(step, value)]}, summary."""

    checkpoints: dict[int, tuple[str, str]]
    points: dict[str, list[tuple[int, float]]]
    summary: dict[str, Any]


def train_all(folder: Path) -> dict[str, Reference]:
    """A reference for each of SPECS, files in `folder`."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda name: train(SPECS[name], folder / name), SPECS)
        return dict(zip(SPECS, found, strict=True))


def train(spec: Spec, folder: Path) -> Reference:
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "worker.training", str(folder / "spec.json"), "--out", str(folder)],
        env={name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the reference run in {folder} failed: {done.stderr}")
    return _read([json.loads(line) for line in done.stdout.splitlines()])


def _read(messages: list[dict[str, Any]]) -> Reference:
    checkpoints = {m["step"]: (m["model_sha256"], m["state_sha256"]) for m in messages if m["type"] == "checkpoint"}
    points: dict[str, list[tuple[int, float]]] = {}
    for message in messages:
        for key, column in message.get("columns", {}).items():
            points.setdefault(key, []).extend(zip(column["steps"], column["values"], strict=True))
    return Reference(checkpoints, points, messages[-1]["summary"])
