"""What a claim costs beside a backlog: `python -m bench.claims [--jobs N] [--rounds N]`.

Half of the queued jobs in one queue, half in another, on embedded Postgres. In turns, each in a transaction that is
rolled back: the query that finds the row to claim, for a worker of one queue and of both, the obvious query for both as
the peer (`queue IN (...) ORDER BY ... LIMIT 1 FOR UPDATE SKIP LOCKED`), and a whole claim from both. Smallest, median
and largest milliseconds. The last line is one JSON object: the smallest and the median of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Connection, Engine, select, text

from jobs.catalog import resolve
from jobs.database import make_engine
from jobs.ids import uuid7
from jobs.lifecycle.claim import best_due, claim
from jobs.lifecycle.lease import clock
from jobs.lifecycle.submit import submit
from jobs.lifecycle.workers import register_worker
from jobs.states import State
from jobs.tables import job
from local import folders, preparation
from local.process import Family
from local.servers import Servers
from traind.spec import JobSpec

QUEUES = ("cuda", "default")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="traind-bench-data-")))
        folders.make(data_dir)
        family = Family()
        stack.callback(family.close)
        servers = stack.enter_context(Servers(data_dir, family, report=print))
        preparation.migrate(servers.database_url)
        engine = make_engine(servers.database_url, application_name="bench")
        stack.callback(engine.dispose)
        figures = measure(engine, arguments.jobs, arguments.rounds)
    print(json.dumps(figures))


def measure(engine: Engine, n_jobs: int, rounds: int) -> dict[str, object]:
    with engine.begin() as conn:
        fill(conn, n_jobs)
        worker_id = uuid7()
        register_worker(conn, worker_id=worker_id, name="bench", device="cuda", queues=QUEUES, versions={})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("ANALYZE job"))
    ways: dict[str, Callable[[Connection], object]] = {
        "one_queue": lambda conn: conn.execute(best_due(QUEUES[1:], "cuda")).one(),
        "two_queues": lambda conn: conn.execute(best_due(QUEUES, "cuda")).one(),
        "obvious_query": obvious,
        "claim": lambda conn: claim(
            conn, worker_id=worker_id, queues=QUEUES, device="cuda", threads=1, lease_seconds=60.0
        ),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(timed(engine, way))
    figures: dict[str, object] = {"jobs": n_jobs}
    for name, values in took.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name}: {low:.2f}, {middle:.2f}, {high:.2f} ms")
        figures[f"{name}_ms"] = [round(low, 2), round(middle, 2)]
    return figures


def fill(conn: Connection, n_jobs: int) -> None:
    """Two jobs by `submit`, and copies of them with other ids."""
    project_id = conn.execute(text("SELECT id FROM project WHERE name = 'default'")).scalar_one()
    for queue in QUEUES:
        document = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}}
        spec = JobSpec.model_validate(document | {"resources": {"queue": queue}})
        submit(conn, project_id=project_id, spec=spec, resolved=resolve(spec), idempotency_key=None)
    names = [column.name for column in job.columns if column.name not in ("id", "created_at")]
    copied = ", ".join(names)
    statement = f"INSERT INTO job (id, {copied}) SELECT gen_random_uuid(), {copied} FROM job, generate_series(1, :more)"
    conn.execute(text(statement), {"more": n_jobs // len(QUEUES) - 1})


def obvious(conn: Connection) -> object:
    due = (job.c.state == State.QUEUED, job.c.queue.in_(QUEUES), job.c.not_before <= clock())
    order = (job.c.crash_count > 0).desc(), job.c.priority.desc(), job.c.created_at, job.c.id
    query = select(job).where(*due).order_by(*order).limit(1)
    return conn.execute(query.with_for_update(skip_locked=True, key_share=True)).one()


def timed(engine: Engine, way: Callable[[Connection], object]) -> float:
    with engine.connect() as conn:
        began = time.perf_counter()
        found = way(conn)
        milliseconds = (time.perf_counter() - began) * 1e3
        conn.rollback()
    assert found is not None, "nothing was due"
    return milliseconds


if __name__ == "__main__":
    main()
