"""How soon a job goes on: `python -m bench.recovery [--kills N] [--stops N] [--drains N] [--lease SECONDS]`.

Real workers on embedded servers, two of them at a time: one trains, one is idle. Each round is a new job, interrupted
after its first checkpoint:

    kill    SIGKILL of the worker that has it, until the next attempt's first step is in the database
    stop    SIGSTOP of that worker, likewise: its lease must run out first, so at most a lease and what a kill takes
    drain   SIGTERM of that worker, until the job is queued again with its checkpoint; the idle worker is not needed

Medians. A killed worker is not believed dead within one lease of Postgres' start, so the kills wait for that. The last
line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, select, text

from jobs.catalog import resolve
from jobs.database import make_engine
from jobs.lifecycle.cancel import request_cancel
from jobs.lifecycle.submit import submit
from jobs.tables import job, worker
from local import folders, preparation
from local.process import Family
from local.servers import Servers
from traind.spec import JobSpec

POLL_SECONDS = 0.002
GIVE_UP_SECONDS = 120.0
SPEC = JobSpec.model_validate(
    {
        "dataset": {"name": "digits"},
        "model": {"name": "mlp", "hidden": [128]},
        "optimizer": {"name": "adam"},
        "training": {"steps": 1_000_000, "threads": 1, "log_every": 10, "checkpoint_every": 500},
    }
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--drains", type=int, default=10)
    parser.add_argument("--lease", type=float, default=15.0, help="TRAIND_LEASE_SECONDS of the workers")
    arguments = parser.parse_args()
    with installation(arguments.lease) as bench:
        figures = {
            "kill_to_step_s": median("kill", arguments.kills, bench.kill),
            "stop_to_step_s": median("stop", arguments.stops, bench.stop),
            "lease_s": arguments.lease,
            "drain_s": median("drain", arguments.drains, bench.drain),
        }
    print(json.dumps(figures))


def median(name: str, rounds: int, measure: Callable[[], float]) -> float:
    seconds = []
    for number in range(rounds):
        seconds.append(measure())
        print(f"{name} {number + 1}/{rounds}: {seconds[-1]:.3f} s", flush=True)
    middle = statistics.median(seconds)
    print(f"{name}: median {middle:.3f} s, {min(seconds):.3f} to {max(seconds):.3f} s", flush=True)
    return round(middle, 3)


class Bench:
    """Servers that run, and workers that come and go."""

    def __init__(self, engine: Engine, folder: Path, environment: dict[str, str]) -> None:
        self._engine, self._folder, self._environment = engine, folder, environment
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._n_started = 0
        with engine.connect() as conn:
            self._project_id = conn.execute(text("SELECT id FROM project WHERE name = 'default'")).scalar_one()

    def kill(self) -> float:
        return self._until_next_step(signal.SIGKILL)

    def stop(self) -> float:
        return self._until_next_step(signal.SIGSTOP)

    def drain(self) -> float:
        self._keep(1)
        job_id, holder = self._training_job()
        began = time.monotonic()
        holder.send_signal(signal.SIGTERM)
        self._wait(lambda: self._job(job_id), lambda row: row.state == "queued")
        seconds = time.monotonic() - began
        assert self._job(job_id).crash_count == 0, "the drain was no drain"
        holder.wait()
        self._cancel(job_id)
        return seconds

    def end(self) -> None:
        for process in self._workers.values():
            process.kill()
            process.wait()

    def _until_next_step(self, number: signal.Signals) -> float:
        self._keep(2)
        job_id, holder = self._training_job()
        began = time.monotonic()
        holder.send_signal(number)
        self._wait(lambda: self._job(job_id), lambda row: row.attempt == 2 and row.observed_step > row.saved_step)
        seconds = time.monotonic() - began
        holder.kill()
        holder.wait()
        self._cancel(job_id)
        return seconds

    def _keep(self, wanted: int) -> None:
        """So many workers, all of them idle."""
        self._workers = {name: process for name, process in self._workers.items() if process.poll() is None}
        while len(self._workers) < wanted:
            self._n_started += 1
            self._start(f"bench-{self._n_started}")
        while len(self._workers) > wanted:
            _, process = self._workers.popitem()
            process.terminate()
            process.wait()

    def _start(self, name: str) -> None:
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            self._workers[name] = subprocess.Popen(
                [sys.executable, "-m", "worker", "--name", name],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._wait(log.read_text, lambda printed: "worker ready" in printed)

    def _training_job(self) -> tuple[UUID, subprocess.Popen[bytes]]:
        """A new job that has a checkpoint, and the worker that trains it."""
        with self._engine.begin() as conn:
            job_id = submit(conn, project_id=self._project_id, spec=SPEC, resolved=resolve(SPEC)).job_id
        row = self._wait(lambda: self._job(job_id), lambda row: (row.saved_step or 0) > 0)
        query = select(worker.c.name).where(worker.c.id == row.worker_id)
        with self._engine.connect() as conn:
            name = conn.execute(query).scalar_one()
        return job_id, self._workers[name]

    def _job(self, job_id: UUID) -> Row[Any]:
        with self._engine.connect() as conn:
            return conn.execute(select(job).where(job.c.id == job_id)).one()

    def _cancel(self, job_id: UUID) -> None:
        with self._engine.begin() as conn:
            request_cancel(conn, project_id=self._project_id, job_id=job_id)
        self._wait(lambda: self._job(job_id), lambda row: row.state == "cancelled")

    @staticmethod
    def _wait(look: Callable[[], Any], condition: Callable[[Any], bool]) -> Any:
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        while not condition(seen := look()):
            if time.monotonic() > give_up_at:
                sys.exit(f"it did not happen within {GIVE_UP_SECONDS:g} s; last seen: {seen}")
            time.sleep(POLL_SECONDS)
        return seen


@contextmanager
def installation(lease_seconds: float) -> Iterator[Bench]:
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="traind-bench-data-")))
        folders.make(data_dir)
        family = Family()
        stack.callback(family.close)
        servers = stack.enter_context(Servers(data_dir, family, report=print))
        up_since = time.monotonic()
        preparation.migrate(servers.database_url)
        engine = make_engine(servers.database_url, application_name="bench")
        stack.callback(engine.dispose)
        environment = os.environ | {
            "TRAIND_DATABASE_URL": servers.database_url,
            "TRAIND_REDIS_URL": servers.redis_url,
            "TRAIND_SCRATCH_DIR": str(data_dir / "scratch"),
            "TRAIND_LEASE_SECONDS": str(lease_seconds),
            "TRAIND_HEARTBEAT_SECONDS": str(min(5.0, lease_seconds / 3)),
        }
        bench = Bench(engine, data_dir / "logs", environment)
        stack.callback(bench.end)
        time.sleep(max(0.0, up_since + lease_seconds - time.monotonic()))
        yield bench


if __name__ == "__main__":
    main()
