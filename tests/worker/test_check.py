"""Checks on a real worker: what is stored is proved, and one flipped bit in the database is found."""

from __future__ import annotations

import json
import signal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, select, update

from jobs import tables
from jobs.blobs import read_range
from jobs.database import cluster_id
from jobs.doorbell import Doorbell
from jobs.lifecycle.check import request_audit, request_verify
from jobs.tables import CHUNK_BYTES, blob_chunk
from tests.worker.conftest import StartWorker
from tests.worker.processes import Worker, wait_dead
from tests.worker.service import BRIEF, Service

SAVING = BRIEF | {"training": {"steps": 60, "threads": 1, "checkpoint_every": 25, "log_every": 7}}
"""Checkpoints at 25, 50 and 60, with open windows."""
LARGE = SAVING | {"model": {"name": "mlp", "hidden": [4_000]}}
"""Weights of more than one chunk."""
LASTING = BRIEF | {"training": {"steps": 1_000, "threads": 1, "log_every": 100}}
"""Seconds of replay."""


def ring(service: Service, queue: str = "default") -> None:
    with service.engine.connect() as conn:
        cluster = cluster_id(conn)
    Doorbell(service.redis_url, cluster).ring(queue)


def ask_verify(service: Service, checkpoint_id: int, queue: str = "default") -> UUID:
    with service.engine.begin() as conn:
        check = request_verify(conn, project_id=service.project_id, checkpoint_id=checkpoint_id).job_id
    ring(service, queue)
    return check


def run_of(service: Service, check: UUID) -> Row[Any]:
    return service.rows(select(tables.check_run).where(tables.check_run.c.id == check))[0]


def result(service: Service, check: UUID) -> dict[str, Any]:
    row = service.wait_final(check)
    assert row.state == "succeeded", row.error
    found: dict[str, Any] = run_of(service, check).result
    return found


def checkpoints(service: Service, job_id: UUID) -> list[Row[Any]]:
    query = select(tables.checkpoint).where(tables.checkpoint.c.job_id == job_id, tables.checkpoint.c.complete)
    return service.rows(query.order_by(tables.checkpoint.c.step))


def trained(service: Service, document: dict[str, Any] = SAVING) -> list[Row[Any]]:
    """The checkpoints of a job that has succeeded."""
    job = service.wait_final(service.submit(document))
    assert job.state == "succeeded", job.error
    return checkpoints(service, job.id)


def flip(service: Service, blob_id: int, byte: int, bit: int) -> None:
    """Change one stored bit."""
    seq, at = divmod(byte, CHUNK_BYTES)
    here = (blob_chunk.c.blob_id == blob_id) & (blob_chunk.c.seq == seq)
    with service.engine.begin() as conn:
        data = bytearray(conn.execute(select(blob_chunk.c.data).where(here)).scalar_one())
        data[at] ^= 1 << bit
        assert conn.execute(update(blob_chunk).where(here).values(data=bytes(data))).rowcount == 1


def offset(service: Service, blob_id: int, tensor: str) -> int:
    """Where a tensor's bytes begin in the blob."""
    data = b"".join(read_range(service.engine, blob_id))
    length = int.from_bytes(data[:8], "little")
    return 8 + length + int(json.loads(data[8 : 8 + length])[tensor]["data_offsets"][0])


@pytest.mark.usefixtures("shared_worker")
def test_every_checkpoint_of_a_job_is_proved(service: Service) -> None:
    saved = trained(service)
    checks = [ask_verify(service, checkpoint.id) for checkpoint in saved]
    starts = []
    for check in checks:
        found = result(service, check)
        assert (found["equal"], found["exact"], found["intact"]) == (True, True, {"model": True, "state": True})
        run = run_of(service, check)
        starts.append((run.from_step, run.to_step))
        assert service.job(check).observed_step == run.to_step
        assert [event.kind for event in service.events(check)] == ["submitted", "started", "ready", "succeeded"]
        assert service.segments(check) == []
    assert starts == [(0, 25), (25, 50), (50, 60)]
    assert checkpoints(service, saved[0].job_id) == saved


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize(
    ("part", "tensor", "byte"),
    [
        ("model", "1.weight", 1_017_000),
        ("model", "3.bias", 7),
        ("state", "optimizer/3.weight/exp_avg", 5),
        ("state", "rng/cpu", 24),
    ],
)
def test_one_flipped_bit_in_a_stored_chunk_names_its_tensor(
    service: Service, part: str, tensor: str, byte: int
) -> None:
    """In the second chunk of the weights, too."""
    first, second, _ = trained(service, LARGE)
    blob_id = getattr(second, f"{part}_blob_id")
    flip(service, blob_id, offset(service, blob_id, tensor) + byte, 4)
    found = result(service, ask_verify(service, second.id))
    assert (found["equal"], found["exact"]) == (False, True)
    assert found["intact"] == {"model": part != "model", "state": part != "state"}
    assert [(one["tensor"], one["n_different"]) for one in found["differences"]] == [(f"{part}/{tensor}", 1)]
    assert found["differences"][0]["largest_difference"] > 0
    assert (found["n_different"], found["rest"], found["unreadable"]) == (1, [], {})
    assert result(service, ask_verify(service, first.id))["equal"]


@pytest.mark.usefixtures("shared_worker")
def test_a_replay_that_would_start_from_damage_says_which_to_verify(service: Service) -> None:
    first, second, _ = trained(service)
    flip(service, first.model_blob_id, offset(service, first.model_blob_id, "1.weight"), 0)
    check = service.wait_final(ask_verify(service, second.id))
    assert (check.state, check.attempt, check.error["code"]) == ("failed", 1, "checkpoint-corrupt")
    assert f"verify checkpoint {first.id}" in check.error["message"]
    found = result(service, ask_verify(service, first.id))
    assert found["differences"][0]["tensor"] == "model/1.weight"


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize("deleted", [0, 1])
def test_a_checkpoint_that_was_deleted_meanwhile(service: Service, deleted: int) -> None:
    saved = trained(service)
    blob = tables.blob.c.id == saved[deleted].model_blob_id
    with service.engine.begin() as conn:
        check = request_verify(conn, project_id=service.project_id, checkpoint_id=saved[1].id).job_id
        conn.execute(update(tables.blob).where(blob).values(state="deleting"))
    ring(service)
    ended = service.wait_final(check)
    assert (ended.state, ended.attempt, ended.error["code"]) == ("failed", 1, "checkpoint-gone")
    assert f"checkpoint {saved[deleted].id} was deleted" in ended.error["message"]


@pytest.mark.usefixtures("shared_worker")
def test_a_lost_chunk_is_a_file_that_cannot_be_read(service: Service) -> None:
    first, _, _ = trained(service)
    with service.engine.begin() as conn:
        conn.execute(blob_chunk.delete().where(blob_chunk.c.blob_id == first.state_blob_id))
    found = result(service, ask_verify(service, first.id))
    assert (found["equal"], list(found["unreadable"])) == (False, ["state"])
    assert found["intact"] == {"model": True, "state": False}
    assert found["differences"] == []


@pytest.mark.usefixtures("shared_worker")
def test_an_audit(service: Service) -> None:
    job_id = service.submit(SAVING)
    with service.engine.begin() as conn:
        check = request_audit(conn, project_id=service.project_id, job_id=job_id, steps=30).job_id
    ring(service)
    found = result(service, check)
    assert found["steps"] == 30
    assert {"model/1.weight", "state/optimizer/3.bias/exp_avg_sq"} <= {t["tensor"] for t in found["tensors"]}
    assert service.job(check).observed_step == service.job(check).total_steps == 60
    assert checkpoints(service, check) == []


def test_a_check_whose_worker_dies_goes_on_elsewhere(service: Service, start: StartWorker, queue: str) -> None:
    with start("trains") as worker:
        job = service.wait_final(service.submit(LASTING, queue=queue))
        (checkpoint,) = checkpoints(service, job.id)
        check = ask_verify(service, checkpoint.id, queue)
        service.wait_step(check, 100)
        trainer = worker.trainer()
        worker.process.send_signal(signal.SIGKILL)
        wait_dead(trainer)
    with start("rescues"):
        assert result(service, check)["equal"]
    assert [attempt.outcome for attempt in service.attempts(check)] == ["lost", "succeeded"]
    assert service.job(check).crash_count == 1


@pytest.mark.usefixtures("shared_worker")
def test_a_check_may_take_longer_than_its_job(service: Service) -> None:
    (checkpoint,) = trained(service, LASTING)
    limited = "jsonb_set(CAST(spec AS jsonb), '{resources,max_runtime_seconds}', '1')"
    service.rows(f"UPDATE job SET spec = {limited} WHERE id = :job RETURNING id", job=checkpoint.job_id)
    check = ask_verify(service, checkpoint.id)
    assert result(service, check)["equal"]
    row = service.job(check)
    assert (row.finished_at - row.started_at).total_seconds() > 1


def test_a_check_is_cancelled_at_once(service: Service, shared_worker: Worker) -> None:
    (checkpoint,) = trained(service, LASTING)
    check = ask_verify(service, checkpoint.id)
    service.wait_step(check, 50)
    trainer = shared_worker.trainer()
    service.cancel_check(check)
    assert service.wait_final(check).state == "cancelled"
    wait_dead(trainer)
    assert run_of(service, check).result is None
