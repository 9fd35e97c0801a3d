"""The protocol: every message survives the wire."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.scenario import trainer_job
from worker.training.messages import (
    Audit,
    Checked,
    Checkpoint,
    CheckpointFiles,
    Failed,
    Finished,
    Message,
    Metrics,
    Phase,
    Progress,
    Ready,
    RunUntil,
    Stop,
    Stopped,
    TrainerJob,
    Verify,
    decode,
    encode,
)

SUMMARY = {"last": {"train/loss": 0.1}, "best": {"val/loss": {"value": 0.5, "step": 3}}}


@pytest.mark.parametrize(
    "message",
    [
        Phase("load"),
        Ready({"torch": "2.13.0"}, 10, 5, ["threads: was 1, is 2"]),
        Progress(7, "train", None, None, 0),
        Metrics(1, 2, {"lr": {"steps": [1, 2], "times": [0.1, 0.2], "values": [1e-3, 1e-300]}}, SUMMARY),
        Checkpoint(5, "final", "/a", "/b", 1, 2, "aa", "bb", SUMMARY),
        Finished("diverged", 9, SUMMARY, {"code": "diverged"}),
        Checked(9, {"equal": False, "differences": [{"tensor": "model/1.weight", "stored": None}]}),
        Stopped("pause", 3),
        Failed("scratch-full", "no room", True, None),
        RunUntil(12345.678901234567),
        Stop("drain"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_there_and_back(message: Message) -> None:
    data = encode(message)
    assert decode(data) == message
    assert b"\n" not in data


@given(st.floats())
def test_every_float_arrives_as_it_was(value: float) -> None:
    sent = Metrics(1, 1, {"train/loss": {"steps": [1], "times": [0.0], "values": [value]}}, SUMMARY)
    received = decode(encode(sent))
    assert isinstance(received, Metrics)
    (arrived,) = received.columns["train/loss"]["values"]
    assert arrived == value or (math.isnan(arrived) and math.isnan(value))


@pytest.mark.parametrize("data", [b"{}", b'{"type": "unknown"}', b'{"type": "phase"}', b"no json"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode(data)


def test_a_trainer_job_is_json(tmp_path: Path) -> None:
    job = trainer_job(tmp_path)
    assert TrainerJob.model_validate_json(job.model_dump_json()) == job
    assert json.loads(job.model_dump_json())["resolved"]["total_steps"] == 460


def test_a_check_is_json(tmp_path: Path) -> None:
    subject = CheckpointFiles(model_path=tmp_path / "m", state_path=tmp_path / "s")
    seen = {"subject": subject, "intact": {"model": True, "state": False}, "trained_by": ({"threads": 1},)}
    for check in (Verify(step=5, final=True, **seen), Audit(steps=9)):  # type: ignore[arg-type]
        job = trainer_job(tmp_path).model_copy(update={"check": check})
        assert TrainerJob.model_validate_json(job.model_dump_json()) == job
