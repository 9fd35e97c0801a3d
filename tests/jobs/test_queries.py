"""What the api reads of jobs: only the caller's project, filtered, paged, and only what still counts."""

from __future__ import annotations

import base64
import math
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, func, insert

from jobs import queries
from jobs.blobs import insert_blob
from jobs.errors import BadCursor, NotFound
from jobs.queries import Filter, JobPage, ShownState
from jobs.states import Outcome, Request, State
from jobs.tables import checkpoint, job_event, project
from tests.jobs.builders import add_attempt, add_job, end_attempt

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def other_project(engine: Engine) -> int:
    with engine.begin() as conn:
        return conn.execute(insert(project).values(name="other").returning(project.c.id)).scalar_one()


def ids(page: JobPage) -> list[UUID]:
    return [job.id for job in page.jobs]


def add_checkpoint(conn: Connection, job_id: UUID, project_id: int, step: int, *, attempt: int = 1, **more: Any) -> int:
    row = {"job_id": job_id, "attempt": attempt, "step": step, "kind": "interval"}
    blobs = {part: insert_blob(conn, project_id, size) for part, size in (("model_blob_id", 10), ("state_blob_id", 20))}
    done = {"complete": True, "completed_at": func.clock_timestamp()}
    query = insert(checkpoint).values(row | blobs | done | more).returning(checkpoint.c.id)
    return conn.execute(query).scalar_one()


def test_a_job_as_it_was_stored(engine: Engine, project_id: int) -> None:
    summary = {"last": {"train/loss": "NaN", "lr": 0.1}, "best": {"train/loss": "-Infinity"}}
    with engine.begin() as conn:
        job_id = add_job(conn, project_id, name="n", labels={"a": "b"}, spec={"version": 1}, summary=summary)
        found = queries.get_job(conn, project_id, job_id)
    assert (found.id, found.name, found.labels, found.spec) == (job_id, "n", {"a": "b"}, {"version": 1})
    assert (found.state, found.requested, found.attempt) == (State.QUEUED, Request.NONE, 0)
    assert math.isnan(found.summary["last"]["train/loss"])
    assert found.summary["best"] == {"train/loss": -math.inf}
    assert found.created_at.tzinfo is not None


def test_jobs_of_another_project_do_not_exist(engine: Engine, project_id: int, other_project: int) -> None:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id)
        checkpoint_id = add_checkpoint(conn, job_id, project_id, 1)
        assert queries.list_jobs(conn, other_project).jobs == ()
        for read in (queries.get_job, queries.events, queries.attempts, queries.checkpoints):
            assert read(conn, project_id, job_id) is not None
            with pytest.raises(NotFound):
                read(conn, other_project, job_id)
            with pytest.raises(NotFound):
                read(conn, project_id, uuid4())
        assert queries.checkpoint(conn, project_id, checkpoint_id).job_id == job_id
        with pytest.raises(NotFound):
            queries.checkpoint(conn, other_project, checkpoint_id)


def test_pages_show_every_job_once_newest_first(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        # Three jobs share each microsecond, so that the id must part them.
        added = [add_job(conn, project_id, created_at=START + timedelta(microseconds=n // 3)) for n in range(10)]
        seen: list[UUID] = []
        cursor: str | None = None
        while True:
            page = queries.list_jobs(conn, project_id, cursor=cursor, limit=4)
            seen += ids(page)
            cursor = page.next_cursor
            add_job(conn, project_id, created_at=START + timedelta(days=1))
            if cursor is None:
                break
    assert seen == sorted(added, key=lambda i: (added.index(i) // 3, i), reverse=True)


def test_the_last_full_page_has_no_cursor(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        add_job(conn, project_id)
        add_job(conn, project_id)
        assert queries.list_jobs(conn, project_id, limit=2).next_cursor is None
        assert queries.list_jobs(conn, project_id, limit=1).next_cursor is not None


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


FOREIGN_CURSORS = [
    "",
    "x",
    "ü",
    "####",
    encoded("[]"),
    encoded("{}"),
    encoded("[1, 2]"),
    encoded("null"),
    encoded('["2026-11-22T12:00:00+00:00", "no uuid"]'),
    encoded(f'["2026-11-22T12:00:00", "{uuid4()}"]'),
    encoded(f'["tomorrow", "{uuid4()}"]'),
    encoded("[" * 100_000),
    base64.urlsafe_b64encode(b"\xff").decode(),
]


def test_a_cursor_of_another_making_is_refused(engine: Engine, project_id: int) -> None:
    with engine.connect() as conn:
        for cursor in FOREIGN_CURSORS:
            with pytest.raises(BadCursor):
                queries.list_jobs(conn, project_id, cursor=cursor)


def test_states_as_users_see_them(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        jobs = {ShownState(state): add_job(conn, project_id, state=state) for state in State}
        jobs[ShownState.CANCELLING] = add_job(conn, project_id, state=State.RUNNING, requested=Request.CANCEL)
        jobs[ShownState.PAUSING] = add_job(conn, project_id, state=State.RUNNING, requested=Request.PAUSE)
        assert set(jobs) == set(ShownState)
        for shown, job_id in jobs.items():
            assert ids(queries.list_jobs(conn, project_id, Filter(states=[shown]))) == [job_id]
            assert queries.get_job(conn, project_id, job_id).shown_state == shown


def test_filters(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        one = add_job(conn, project_id, labels={"study": "a", "arm": "1"})
        two = add_job(conn, project_id, labels={"study": "a", "arm": "2"}, optimizer="sgd")
        three = add_job(conn, project_id, labels={"study": "b"})

        def found(**filters: Any) -> list[UUID]:
            return ids(queries.list_jobs(conn, project_id, Filter(**filters)))

        assert found() == [three, two, one]
        assert found(labels={"study": "a"}) == [two, one]
        assert found(labels={"study": "a", "arm": "1"}) == [one]
        assert found(labels={"arm": None}) == [two, one]
        assert found(labels={"arm": None, "study": "b"}) == []
        assert found(optimizer="sgd", labels={"study": "a"}) == [two]
        assert found(optimizer="sgd", states=[ShownState.FAILED]) == []
        assert found(labels={"study\0": None, "a": "\ud800"}, optimizer="\0") == []


def test_events_after_an_id(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        for kind in ("submitted", "started", "succeeded"):
            conn.execute(insert(job_event).values(job_id=job_id, kind=kind, attempt=0, data={"of": kind}))
        every = queries.events(conn, project_id, job_id)
        assert [event.kind for event in every] == ["submitted", "started", "succeeded"]
        assert queries.events(conn, project_id, job_id, after=every[0].id, limit=1) == every[1:2]
        assert queries.events(conn, project_id, job_id, after=every[2].id) == []
        assert every[0].data == {"of": "submitted"}


def test_attempts_with_their_logs(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id, 1, log="Segmentation fault")
        end_attempt(conn, job_id, 1, outcome="crashed")
        add_attempt(conn, job_id, 2, from_step=7)
        first, second = queries.attempts(conn, project_id, job_id)
    assert (first.number, first.outcome, first.log) == (1, Outcome.CRASHED, "Segmentation fault")
    assert first.ended_at is not None
    assert (second.number, second.outcome, second.from_step, second.log) == (2, None, 7, None)


def test_checkpoints_that_still_count(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        job_id = add_job(conn, project_id)
        add_attempt(conn, job_id, 1)
        add_checkpoint(conn, job_id, project_id, 10, summary={"last": {"val/loss": "Infinity"}})
        add_checkpoint(conn, job_id, project_id, 20)
        add_attempt(conn, job_id, 2, from_step=20)
        add_checkpoint(conn, job_id, project_id, 30, attempt=2)
        add_attempt(conn, job_id, 3, from_step=10)
        add_checkpoint(conn, job_id, project_id, 15, attempt=3)
        unfinished = add_checkpoint(conn, job_id, project_id, 25, attempt=3, complete=False, completed_at=None)
        visible = queries.checkpoints(conn, project_id, job_id)
        everything = queries.checkpoints(conn, project_id, job_id, attempts="all")
        assert [(row.attempt, row.step) for row in visible] == [(1, 10), (3, 15)]
        assert [(row.attempt, row.step) for row in everything] == [(1, 10), (3, 15), (1, 20), (3, 25), (2, 30)]
        assert visible[0].summary == {"last": {"val/loss": math.inf}}
        assert (visible[0].model.size, visible[0].state.size) == (10, 20)
        assert not queries.checkpoint(conn, project_id, unfinished).complete
