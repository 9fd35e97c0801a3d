"""Filters of the list of jobs: ids, names, times and metrics, and what they cost among many jobs."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from jobs import queries
from jobs.queries import Bound, Filter, MetricBound
from tests.jobs.builders import add_job

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
SUMMARIES = {
    "low": {"last": {"val/accuracy": 0.2}, "best": {"val/accuracy": {"value": 0.95, "step": 3}}},
    "high": {"last": {"val/accuracy": 0.9}, "best": {"val/accuracy": {"value": 0.9, "step": 3}}},
    "one": {"last": {"val/accuracy": 1}, "best": {}},
    "nan": {"last": {"val/accuracy": "NaN", "val/loss": 5e-324}},
    "inf": {"last": {"val/accuracy": 0.1, "val/loss": "Infinity"}},
    "none": {},
    "odd": {"last": {"val/accuracy": {"value": 7}, "val/loss": "words"}, "best": {"val/accuracy": 3}},
}
MANY = """
    INSERT INTO job (id, project_id, optimizer, spec, resolved, dataset_sha256, state, queue, device, priority,
                     max_attempts, total_steps, name, summary, labels)
    SELECT gen_random_uuid(), :project, 'sgd', CAST(:document AS json), CAST(:document AS json), dataset_sha256,
           'queued', 'default', 'auto', 0, 3, 100, 'job ' || n,
           jsonb_build_object('last', jsonb_build_object('val/accuracy', n / 10000.0)), '{}'
    FROM generate_series(1, :count) AS n, job
"""


def found(conn: Connection, project_id: int, **wanted: object) -> list[UUID]:
    return [row.id for row in queries.list_jobs(conn, project_id, Filter(**wanted), limit=200).jobs]  # type: ignore[arg-type]


def test_a_job_is_found_by_the_end_or_the_start_of_its_id(engine: Engine, project_id: int) -> None:
    one, two = UUID("01a2266f-eb3a-71c5-9c5f-2d2f10f6d06f"), UUID("01a2266f-eb3b-71c5-9c5f-2d2f10aad06f")
    with engine.begin() as conn:
        for ident in (one, two):
            add_job(conn, project_id, id=ident)
        for digits, expected in {
            "d06f": [two, one],
            "f6d06f": [one],
            "10aad06f": [two],
            one.hex: [one],
            one.hex[1:]: [one],
            "01a2266f": [two, one],
            "01a2266feb3a": [one],
            "01a2266feb3b71": [two],
            "01a2266": [],
            "01a2266e": [],
            "0000": [],
            "gggg": [],
        }.items():
            assert found(conn, project_id, ident=digits) == expected, digits
        assert found(conn, project_id + 1, ident="d06f") == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sweep", ["sweep-1", "sweep-10", "Sweep_2"]),
        ("sweep-*", ["sweep-1", "sweep-10"]),
        ("SWEEP?2", ["Sweep_2"]),
        ("sweep-?", ["sweep-1"]),
        ("*1*", ["sweep-1", "sweep-10", "100% sure"]),
        ("p_", ["Sweep_2"]),
        ("100%", ["100% sure"]),
        ("%", ["100% sure"]),
        ("a\\b", ["a\\b"]),
        ("\\", ["a\\b"]),
        ("1", ["sweep-1", "sweep-10", "100% sure"]),
        ("'; DROP TABLE job; --", []),
        ("\0", []),
        ("\ud800", []),
    ],
)
def test_names_by_part_or_pattern(engine: Engine, project_id: int, name: str, expected: list[str]) -> None:
    with engine.begin() as conn:
        ids = {
            each: add_job(conn, project_id, name=each)
            for each in ("sweep-1", "sweep-10", "Sweep_2", "100% sure", "a\\b")
        }
        add_job(conn, project_id, name=None)
        assert set(found(conn, project_id, name=name)) == {ids[each] for each in expected}


def test_times_exclude_their_ends(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        jobs = [add_job(conn, project_id, created_at=START + timedelta(hours=n)) for n in range(4)]
        later, earlier = START, START + timedelta(hours=3)
        assert found(conn, project_id, created_after=later) == jobs[:0:-1]
        assert found(conn, project_id, created_after=later, created_before=earlier) == [jobs[2], jobs[1]]
        assert found(conn, project_id, created_before=datetime.min.replace(tzinfo=UTC)) == []
        assert found(conn, project_id, created_after=datetime.max.replace(tzinfo=UTC)) == []


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (MetricBound("val/accuracy", Bound.ABOVE, 0.9), {"one"}),
        (MetricBound("val/accuracy", Bound.AT_LEAST, 0.9), {"high", "one"}),
        (MetricBound("val/accuracy", Bound.BELOW, 0.2), {"inf"}),
        (MetricBound("val/accuracy", Bound.AT_MOST, 0.2), {"low", "inf"}),
        (MetricBound("val/accuracy", Bound.ABOVE, 0.9, best=True), {"low"}),
        (MetricBound("val/accuracy", Bound.ABOVE, -1e308), {"low", "high", "one", "inf"}),
        (MetricBound("val/loss", Bound.ABOVE, 1e308), {"inf"}),
        (MetricBound("val/loss", Bound.ABOVE, 0.0), {"inf", "nan"}),
        (MetricBound("val/loss", Bound.ABOVE, 5e-324), {"inf"}),
        (MetricBound("last", Bound.ABOVE, 0.0), set()),
        (MetricBound("'}' --\0\ud800", Bound.ABOVE, 0.0), set()),
        (MetricBound("{}", Bound.ABOVE, 0.0), set()),
    ],
)
def test_metrics_by_their_last_or_best_value(
    engine: Engine, project_id: int, bound: MetricBound, expected: set[str]
) -> None:
    with engine.begin() as conn:
        ids = {name: add_job(conn, project_id, summary=summary) for name, summary in SUMMARIES.items()}
        assert set(found(conn, project_id, metrics=[bound])) == {ids[name] for name in expected}
        if expected:
            assert found(conn, project_id, metrics=[bound, MetricBound("no", Bound.ABOVE, 0.0)]) == []


def test_pages_of_a_filter_show_every_job_once(engine: Engine, project_id: int) -> None:
    with engine.begin() as conn:
        wanted = [add_job(conn, project_id, name=f"{'x' if n % 3 else 'y'}{n}", created_at=START) for n in range(20)][
            ::3
        ]
        pages, cursor = [], None
        for _ in itertools.count():
            page = queries.list_jobs(conn, project_id, Filter(name="y*"), cursor=cursor, limit=3)
            pages.append([row.id for row in page.jobs])
            cursor = page.next_cursor
            if cursor is None:
                break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert sorted(itertools.chain(*pages)) == sorted(wanted)


def test_an_id_is_found_by_index_among_many(engine: Engine, project_id: int) -> None:
    scans = text(
        "SELECT pg_stat_get_xact_numscans('ix_job_id_reversed'::regclass), seq_scan FROM pg_stat_xact_user_tables"
        " WHERE relname = 'job'"
    )
    with engine.begin() as conn:
        ident = add_job(conn, project_id)
        conn.execute(text(MANY), {"project": project_id, "document": "{}", "count": 3_000})
        conn.execute(text("ANALYZE job"))
        before = conn.execute(scans).one()
        for _ in range(8):  # psycopg prepares a statement that it meets often
            assert found(conn, project_id, ident=ident.hex[-8:]) == [ident]
        after = conn.execute(scans).one()
    assert (after[0] - before[0], after[1] - before[1]) == (8, 0)
