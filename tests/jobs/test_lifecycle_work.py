"""What the holder of a lease writes, and that a repeat after a lost answer is harmless."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, update

from jobs.documents import unpack_floats
from jobs.errors import Fenced, IncompleteUpload
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import (
    begin_checkpoint,
    complete_checkpoint,
    crash,
    finish,
    heartbeat,
    hold,
    put_chunk,
    record_fingerprint,
    record_metrics,
    record_progress,
    requeue,
)
from jobs.queries import get_job
from jobs.states import Request, State
from jobs.tables import CHUNK_BYTES, blob_chunk, checkpoint, job, job_event, metric_segment
from tests.jobs import scenario
from tests.jobs.scenario import (
    ERROR,
    add_job,
    attempts,
    events,
    everything,
    expire,
    job_row,
    now_due,
    segment,
    start,
    until,
    waits_for_lock,
)


@pytest.fixture
def lease(engine: Engine, project_id: int) -> Lease:
    add_job(engine, project_id)
    return start(engine).lease


def end(engine: Engine, lease: Lease, state: State = State.SUCCEEDED, **values: Any) -> State:
    known: dict[str, Any] = {"error": None, "summary": {}, "log": None}
    with engine.begin() as conn:
        return finish(conn, lease, state=state, **(known | values))


@pytest.mark.parametrize("requested", [Request.NONE, Request.CANCEL])
def test_an_early_stop_is_a_success_with_its_rule_and_step(engine: Engine, project_id: int, requested: Request) -> None:
    """One that is cancelled in the same moment is cancelled, and nothing else."""
    job_id = add_job(engine, project_id, training={"early_stopping": {"metric": "val/accuracy", "patience": 3}})
    lease = start(engine).lease
    scenario.checkpoint(engine, lease, 20)
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(requested=requested))
    end(engine, lease, summary={"stopped_early": True})
    with engine.begin() as conn:
        data = conn.execute(select(job_event.c.data).order_by(job_event.c.id.desc()).limit(1)).scalar_one()
        shown = get_job(conn, project_id, job_id)
    rule = {"step": 20, "metric": "val/accuracy", "patience": 3, "min_delta": 0.0}
    early = requested is Request.NONE
    assert (shown.state, shown.stopped_early) == (State.SUCCEEDED if early else State.CANCELLED, early)
    assert data == ({"stopped_early": rule} if early else {})


def crashed(engine: Engine, lease: Lease, **values: Any) -> State:
    with engine.begin() as conn:
        return crash(conn, lease, **({"error": ERROR, "log": None} | values))


def ask(engine: Engine, job_id: UUID, request: Request) -> None:
    with engine.begin() as conn:
        conn.execute(update(job).where(job.c.id == job_id).values(requested=request))


class TestHeartbeat:
    def test_it_renews_the_lease_and_tells_of_requests(self, engine: Engine, lease: Lease) -> None:
        with engine.begin() as conn:
            assert heartbeat(conn, lease, lease_seconds=600) is Request.NONE
        ask(engine, lease.job_id, Request.CANCEL)
        with engine.begin() as conn:
            assert heartbeat(conn, lease, lease_seconds=600) is Request.CANCEL
            left = conn.execute(select(job.c.lease_until - func.clock_timestamp())).scalar_one()
        assert 590 < left.total_seconds() <= 600

    def test_a_late_lease_that_nobody_took_is_renewed(self, engine: Engine, lease: Lease) -> None:
        expire(engine, lease.job_id)
        with pytest.raises(Fenced), engine.begin() as conn:
            record_progress(conn, lease, phase="train", step=1, summary={})
        with engine.begin() as conn:
            heartbeat(conn, lease, lease_seconds=60)
        with engine.begin() as conn:
            record_progress(conn, lease, phase="train", step=1, summary={})

    def test_it_is_no_visible_change(self, engine: Engine, lease: Lease) -> None:
        before = job_row(engine, lease.job_id).version
        with engine.begin() as conn:
            heartbeat(conn, lease, lease_seconds=60)
            hold(conn, lease, backend_pid=1)
        assert job_row(engine, lease.job_id).version == before


class TestProgress:
    def test_summaries_are_merged_key_by_key(self, engine: Engine, lease: Lease) -> None:
        first = {"last": {"lr": 0.1, "train/loss": 2.0}, "best": {"val/loss": 1.5}, "rate": 10.0, "other": 1}
        second = {"last": {"train/loss": math.nan}, "rate": math.inf, "eta_seconds": None}
        before = job_row(engine, lease.job_id)
        with engine.begin() as conn:
            record_progress(conn, lease, phase="train", step=5, summary=first)
            record_progress(conn, lease, phase="evaluate", step=6, summary=second)
        row = job_row(engine, lease.job_id)
        assert (row.observed_step, row.phase, row.version) == (6, "evaluate", before.version + 2)
        assert row.updated_at > before.updated_at
        summary = unpack_floats(row.summary)
        assert math.isnan(summary["last"].pop("train/loss"))
        assert summary == {
            "last": {"lr": 0.1},
            "best": {"val/loss": 1.5},
            "rate": math.inf,
            "other": 1,
            "eta_seconds": None,
        }

    def test_an_older_flush_that_is_repeated_moves_nothing_back(self, engine: Engine, lease: Lease) -> None:
        with engine.begin() as conn:
            record_progress(conn, lease, phase="train", step=9, summary={"last": {"train/loss": 0.9}})
            record_progress(conn, lease, phase="train", step=5, summary={"last": {"train/loss": 5.0}})
        row = job_row(engine, lease.job_id)
        assert (row.observed_step, row.summary) == (9, {"last": {"train/loss": 0.9}})

    def test_the_fingerprint_belongs_to_the_attempt_and_tells_once(self, engine: Engine, lease: Lease) -> None:
        for _ in range(2):
            with engine.begin() as conn:
                record_fingerprint(conn, lease, {"torch": "2.13.0"})
        assert events(engine, lease.job_id) == ["submitted", "started", "ready"]
        assert attempts(engine, lease.job_id)[0].fingerprint == {"torch": "2.13.0"}

    def test_a_ready_trainer_is_an_event_once_also_where_the_answer_was_lost(
        self, engine: Engine, lease: Lease
    ) -> None:
        for _ in range(2):
            with engine.begin() as conn:
                record_fingerprint(conn, lease, {"torch": "2.13.0", "differences": ["threads"]})
        assert events(engine, lease.job_id).count("ready") == 1


class TestMetrics:
    def test_a_flush_whose_answer_was_lost_is_stored_once(self, engine: Engine, lease: Lease) -> None:
        for _ in range(2):
            with engine.begin() as conn:
                record_metrics(conn, lease, seq=0, segment=segment(1, 4), phase="train")
        with engine.connect() as conn:
            assert conn.execute(select(metric_segment.c.seq, metric_segment.c.step1)).all() == [(0, 4)]
        row = job_row(engine, lease.job_id)
        assert (row.observed_step, row.phase) == (4, "train")

    def test_a_fenced_flush_leaves_no_points(self, engine: Engine, lease: Lease) -> None:
        expire(engine, lease.job_id)
        with pytest.raises(Fenced), engine.begin() as conn:
            record_metrics(conn, lease, seq=0, segment=segment(1, 4))
        with engine.connect() as conn:
            assert conn.execute(select(func.count()).select_from(metric_segment)).scalar_one() == 0


class TestCheckpoints:
    def test_a_complete_checkpoint_moves_saved_step_and_tells(self, engine: Engine, lease: Lease) -> None:
        ref = scenario.checkpoint(engine, lease, 12, kind="final")
        row = job_row(engine, lease.job_id)
        assert row.saved_step == 12
        with engine.connect() as conn:
            data = conn.execute(select(job_event.c.data).where(job_event.c.kind == "checkpoint")).scalar_one()
        assert data == {"checkpoint": ref.id, "step": 12, "kind": "final"}

    def test_each_step_can_be_repeated(self, engine: Engine, lease: Lease) -> None:
        sizes: dict[str, Any] = {"step": 3, "kind": "interval", "model_size": 3, "state_size": 0, "summary": {}}
        with engine.begin() as conn:
            ref = begin_checkpoint(conn, lease, **sizes)
        with engine.begin() as conn:
            assert begin_checkpoint(conn, lease, **sizes) == ref
        for data in (b"abc", b"xyz"):
            with engine.begin() as conn:
                put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=0, data=data)
        for _ in range(2):
            with engine.begin() as conn:
                complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)
        with engine.connect() as conn:
            assert conn.execute(select(blob_chunk.c.data)).scalars().all() == [b"abc"]
        assert events(engine, lease.job_id).count("checkpoint") == 1

    @pytest.mark.parametrize("chunks", [[], [b"ab"], [b"abcd"], [b"abc", b""]])
    def test_missing_or_wrong_chunks_are_refused(self, engine: Engine, lease: Lease, chunks: list[bytes]) -> None:
        with engine.begin() as conn:
            ref = begin_checkpoint(conn, lease, step=3, kind="interval", model_size=3, state_size=0, summary={})
            for seq, data in enumerate(chunks):
                put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=seq, data=data)
        with pytest.raises(IncompleteUpload, match=f"blob {ref.model_blob_id}"), engine.begin() as conn:
            complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)
        with engine.connect() as conn:
            assert conn.execute(select(checkpoint.c.complete)).scalars().all() == [False]
        assert job_row(engine, lease.job_id).saved_step is None

    def test_chunks_that_only_add_up_are_refused(self, engine: Engine, lease: Lease) -> None:
        with engine.begin() as conn:
            sizes = {"model_size": CHUNK_BYTES + 1, "state_size": 0}
            ref = begin_checkpoint(conn, lease, step=3, kind="interval", **sizes, summary={})
            for seq, size in enumerate((CHUNK_BYTES - 1, 2)):
                put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=seq, data=b"x" * size)
        with pytest.raises(IncompleteUpload, match=f"blob {ref.model_blob_id}"), engine.begin() as conn:
            complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)

    def test_a_chunk_does_not_wait_for_the_jobs_row(self, engine: Engine, lease: Lease) -> None:
        with engine.begin() as conn:
            ref = begin_checkpoint(conn, lease, step=3, kind="interval", model_size=3, state_size=0, summary={})
        with engine.begin() as busy, engine.begin() as conn:
            record_progress(busy, lease, phase="train", step=4, summary={})
            put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=0, data=b"abc")

    def test_chunks_of_a_complete_blob_are_refused(self, engine: Engine, lease: Lease) -> None:
        ref = scenario.checkpoint(engine, lease, 3)
        before = everything(engine)
        with pytest.raises(Fenced), engine.begin() as conn:
            put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=1, data=b"more")
        assert everything(engine) == before


class TestFinish:
    @pytest.mark.parametrize("state", [State.SUCCEEDED, State.DIVERGED, State.FAILED])
    def test_the_outcome_is_kept_on_job_and_attempt(self, engine: Engine, lease: Lease, state: State) -> None:
        error = (
            None if state is State.SUCCEEDED else {"code": "c", "message": "m", "retryable": False, "loss": math.nan}
        )
        assert end(engine, lease, state, error=error, summary={"last": {"val/loss": 0.1}}, log="bye") is state
        row, attempt = job_row(engine, lease.job_id), attempts(engine, lease.job_id)[0]
        assert (row.state, row.summary) == (state, {"last": {"val/loss": 0.1}})
        assert row.finished_at is not None
        assert (attempt.outcome, attempt.log, attempt.error) == (state, "bye", row.error)
        assert (row.error or {}).get("loss") == (None if error is None else "NaN")
        assert (row.lease_token, row.lease_until, row.worker_id, row.backend_pid, row.phase) == (None,) * 5
        assert events(engine, lease.job_id)[-1] == state

    def test_a_repeat_with_its_own_token_is_done(self, engine: Engine, lease: Lease) -> None:
        end(engine, lease)
        before = everything(engine)
        assert end(engine, lease) is State.SUCCEEDED
        assert everything(engine) == before

    def test_a_repeat_beside_the_commit_whose_answer_was_lost_waits_for_it(self, engine: Engine, lease: Lease) -> None:
        with ThreadPoolExecutor(1) as pool:
            with engine.begin() as conn:
                finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
                repeat = pool.submit(end, engine, lease)
                until(lambda: waits_for_lock(engine))
            assert repeat.result(10) is State.SUCCEEDED

    def test_another_outcome_after_the_first_is_fenced(self, engine: Engine, lease: Lease) -> None:
        end(engine, lease)
        with pytest.raises(Fenced):
            end(engine, lease, State.FAILED, error=ERROR)
        with pytest.raises(Fenced):
            crashed(engine, lease)

    def test_cancel_wins_over_every_outcome(self, engine: Engine, lease: Lease) -> None:
        ask(engine, lease.job_id, Request.CANCEL)
        assert end(engine, lease) is State.CANCELLED
        assert end(engine, lease) is State.CANCELLED
        row = job_row(engine, lease.job_id)
        assert (row.state, row.requested, row.error) == ("cancelled", "none", None)

    def test_only_the_end_of_a_long_log_is_kept_and_made_storable(self, engine: Engine, lease: Lease) -> None:
        end(engine, lease, log="x" * 100_000 + "\x00 end \ud800")
        log = attempts(engine, lease.job_id)[0].log
        assert len(log) == 65_536
        assert log.endswith("x\ufffd end \ufffd")

    def test_a_state_that_is_not_final_is_refused(self, engine: Engine, lease: Lease) -> None:
        with pytest.raises(ValueError, match="not a final state"):
            end(engine, lease, State.QUEUED)


class TestCrash:
    def test_the_first_is_retried_at_once_the_next_after_a_while_and_the_last_fails(
        self, engine: Engine, project_id: int
    ) -> None:
        job_id = add_job(engine, project_id, resources={"max_attempts": 4})
        waits = []
        for _ in range(3):
            assert crashed(engine, start(engine).lease, log="core dumped") is State.QUEUED
            row = job_row(engine, job_id)
            waits.append(round((row.not_before - row.updated_at).total_seconds()))
            now_due(engine, job_id)
        assert waits == [0, 2, 4]
        assert crashed(engine, start(engine).lease) is State.FAILED
        row = job_row(engine, job_id)
        assert (row.state, row.crash_count, row.error) == ("failed", 4, ERROR)
        assert [a.outcome for a in attempts(engine, job_id)] == ["crashed"] * 4
        assert attempts(engine, job_id)[0].log == "core dumped"

    @pytest.mark.parametrize(("request_", "target"), [(Request.CANCEL, "cancelled"), (Request.PAUSE, "paused")])
    def test_a_pending_request_decides(self, engine: Engine, lease: Lease, request_: Request, target: str) -> None:
        ask(engine, lease.job_id, request_)
        assert crashed(engine, lease) == target
        row = job_row(engine, lease.job_id)
        assert (row.state, row.requested, row.crash_count) == (target, "none", 1)

    def test_a_repeat_answers_the_same_though_the_job_went_on(self, engine: Engine, lease: Lease) -> None:
        crashed(engine, lease)
        second = start(engine).lease
        before = everything(engine)
        assert crashed(engine, lease) is State.QUEUED
        assert everything(engine) == before
        assert second.attempt == 2


class TestRequeue:
    def test_a_drain_counts_no_crash(self, engine: Engine, lease: Lease) -> None:
        for _ in range(2):
            with engine.begin() as conn:
                assert requeue(conn, lease, reason="worker-stopped", log=None) is State.QUEUED
        row = job_row(engine, lease.job_id)
        assert (row.state, row.crash_count) == ("queued", 0)
        assert attempts(engine, lease.job_id)[0].outcome == "drained"
        assert start(engine).lease.attempt == 2
