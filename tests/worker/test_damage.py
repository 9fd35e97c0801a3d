"""A checkpoint that was damaged where it is stored costs steps, never bits; and a resume that is not exact says so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, delete, select, update

from jobs.blobs import read_range
from jobs.tables import blob, blob_chunk
from tests.folders import found
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker
from tests.worker.service import BRIEF, Service, until
from tests.worker.test_check import ask_verify, checkpoints, flip, offset, ring, run_of
from tests.worker.test_pause import points

STOPPING = BRIEF | {"training": {"steps": 60, "threads": 1, "checkpoint_every": 25, "log_every": 7}}


BACK = "UPDATE job SET state = 'queued', finished_at = NULL WHERE id = :job RETURNING id"


@pytest.fixture
def cut(service: Service, start: StartWorker, queue: str) -> UUID:
    """A job with checkpoints of steps 25, 50 and 60 that is to go on from the last one."""
    job_id = service.submit(STOPPING, queue=queue, max_runtime_seconds=86_400)
    with start("first"):
        assert service.wait_final(job_id).state == "succeeded"
    service.rows(BACK, job=job_id)
    return job_id


def damaged(service: Service, job_id: UUID) -> list[tuple[int, str]]:
    events = [event.data for event in service.events(job_id) if event.kind == "checkpoint-damaged"]
    return [(data["step"], data["damage"]) for data in events]


def downloaded(service: Service, worker: Worker, job_id: UUID, checkpoint: Row[Any]) -> list[Path]:
    """The files of a checkpoint, weights first, that are whole in the scratch folder."""
    stored = select(blob.c.sha256).where(blob.c.id.in_([checkpoint.model_blob_id, checkpoint.state_blob_id]))
    hashes = {row.sha256 for row in service.rows(stored)}
    paths = found(worker.scratch, f"{job_id}-*/*-{checkpoint.id}.*.safetensors")
    return sorted(path for path in paths if hashlib.sha256(path.read_bytes()).digest() in hashes)


def falsify(service: Service, blob_id: int, byte: int) -> None:
    """Change a stored bit and the hash with it, as if it had been uploaded so."""
    flip(service, blob_id, byte, 3)
    stored = b"".join(read_range(service.engine, blob_id))
    change: Any = {"sha256": hashlib.sha256(stored).digest()}
    with service.engine.begin() as conn:
        conn.execute(update(blob).where(blob.c.id == blob_id).values(change))


def assert_as_never_stopped(service: Service, job_id: UUID, queue: str) -> None:
    whole = service.submit(STOPPING, queue=queue)
    assert service.wait_final(whole).state == "succeeded"
    assert points(service, job_id) == points(service, whole)
    one, other = service.checkpoints(whole)[-1], service.checkpoints(job_id)[-1]
    assert (other.step, other.model, other.state) == (one.step, one.model, one.state)
    assert service.job(job_id).resume_differences == []


def test_a_flipped_bit_and_a_lost_chunk_lead_to_the_ones_before(
    service: Service, start: StartWorker, queue: str, cut: UUID
) -> None:
    first, second, third = checkpoints(service, cut)
    flip(service, third.state_blob_id, offset(service, third.state_blob_id, "rng/cpu") + 24, 4)
    with service.engine.begin() as conn:
        conn.execute(delete(blob_chunk).where(blob_chunk.c.blob_id == second.model_blob_id))
    with start("next"):
        job = service.wait_final(cut)
        assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 0)
        assert damaged(service, cut) == [
            (60, "its state has another SHA-256 than was uploaded"),
            (50, "a part of its model is gone"),
        ]
        attempt = service.attempts(cut)[-1]
        assert (attempt.from_step, attempt.from_checkpoint_id) == (25, first.id)
        assert_as_never_stopped(service, cut, queue)


def test_where_all_are_damaged_it_starts_over(service: Service, start: StartWorker, queue: str, cut: UUID) -> None:
    for saved in checkpoints(service, cut):
        flip(service, saved.model_blob_id, 9, 0)
    with start("next"):
        job = service.wait_final(cut)
        assert (job.state, job.attempt, job.crash_count) == ("succeeded", 2, 0)
        assert [step for step, _ in damaged(service, cut)] == [60, 50, 25]
        assert service.attempts(cut)[-1].from_step == 0
        assert_as_never_stopped(service, cut, queue)


def test_what_only_the_trainer_can_see_costs_an_attempt(
    service: Service, start: StartWorker, queue: str, cut: UUID
) -> None:
    """Its CRC is wrong though its SHA-256 is right: it was damaged before it was stored. No crash is counted."""
    _, _, third = checkpoints(service, cut)
    falsify(service, third.model_blob_id, offset(service, third.model_blob_id, "1.weight"))
    service.rows("UPDATE job SET max_attempts = 1 WHERE id = :job RETURNING id", job=cut)
    with start("next"):
        job = service.wait_final(cut)
        assert (job.state, job.crash_count) == ("succeeded", 0)
        attempts = service.attempts(cut)
        assert [(a.from_step, a.outcome) for a in attempts[1:]] == [(60, "crashed"), (50, "succeeded")]
        assert (attempts[1].error["code"], attempts[1].error["retryable"]) == ("checkpoint-corrupt", True)
        ((step, damage),) = damaged(service, cut)
        assert step == 60
        assert "CRC-32" in damage
        assert_as_never_stopped(service, cut, queue)


@pytest.mark.parametrize(
    ("checked", "read", "byte"),
    [(False, 2, -1), (False, 2, 30), (True, 1, -1), (True, 2, -1)],
    ids=["job", "job, header", "check, start", "check, subject"],
)
def test_where_only_this_machine_s_copy_changed_the_checkpoint_keeps_its_place(
    service: Service, start: StartWorker, queue: str, cut: UUID, checked: bool, read: int, byte: int
) -> None:
    """A bit flips in the scratch folder between download and loading: the attempt is lost, the checkpoint is not."""
    saved = checkpoints(service, cut)
    with start("next") as worker:
        service.wait_final(cut)
        until(lambda: found(worker.scratch, f"*/{cut}-*"), lambda left: not left)
        server = worker.fork_server()
        server.suspend()
        if checked:
            job_id = ask_verify(service, saved[2].id, queue)
        else:
            job_id = cut
            service.rows(BACK, job=cut)
            ring(service, queue)
        model, _ = until(lambda: downloaded(service, worker, job_id, saved[read]), lambda paths: len(paths) == 2)
        content = bytearray(model.read_bytes())
        content[byte] ^= 1
        model.write_bytes(content)
        server.resume()
        job = service.wait_final(job_id)
    assert (job.state, job.crash_count) == ("succeeded", 0)
    attempts = service.attempts(job_id)[-2:]
    assert [attempt.outcome for attempt in attempts] == ["crashed", "succeeded"]
    assert (attempts[0].error["code"], attempts[0].error["retryable"]) == ("checkpoint-unreadable", True)
    assert damaged(service, cut) == []
    assert attempts[1].from_checkpoint_id == attempts[0].from_checkpoint_id
    if checked:
        assert run_of(service, job_id).result["equal"]


def test_a_check_whose_start_only_the_trainer_can_see_to_be_damaged_names_it(
    service: Service, start: StartWorker, queue: str, cut: UUID
) -> None:
    _, second, third = checkpoints(service, cut)
    falsify(service, second.model_blob_id, offset(service, second.model_blob_id, "1.weight"))
    with start("next"):
        check = service.wait_final(ask_verify(service, third.id, queue))
    assert (check.state, check.error["code"]) == ("failed", "checkpoint-corrupt")
    assert f"checkpoint {second.id} of step 50" in check.error["message"]
    assert f"verify checkpoint {second.id}" in check.error["message"]
    assert damaged(service, cut) == []


def test_a_resume_by_another_kernel_is_not_exact_and_says_why(
    service: Service, start: StartWorker, queue: str, cut: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.job(cut).resume_differences == []
    first, *_ = checkpoints(service, cut)
    for saved in checkpoints(service, cut)[1:]:
        flip(service, saved.model_blob_id, 9, 0)
    monkeypatch.setenv("TRAIND_KERNEL", "torch")
    with start("next"):
        job = service.wait_final(cut)
    ((difference,),) = [job.resume_differences]
    assert difference.startswith("optimizer: was native")
    assert difference.endswith(", is torch")
    attempt = service.attempts(cut)[-1]
    assert (attempt.from_checkpoint_id, attempt.fingerprint["differences"]) == (first.id, [difference])
