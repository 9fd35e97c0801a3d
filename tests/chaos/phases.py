"""Kills in a phase of a job, each with its proof that the victim was in it.

Claim, upload and finish are transactions of milliseconds. A lock on what they need holds them open: who waits with
which statement stands in pg_stat_activity, under the worker's name; that worker gets `kill -9`.
Load, step and evaluate are the trainer's own: it gets SIGABRT, and the traceback that the service keeps with the
attempt (faulthandler's) says where that hit.
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Any

import psutil

from tests.chaos.installation import Installation
from tests.chaos.witness import Trainer

PHASES = ("claim", "load", "step", "evaluate", "upload", "finish")
HOLD_SECONDS = 2.5
"""At most so long is anything locked: well below a lease, for a heartbeat may wait behind it."""
PROOF_SECONDS = 20.0
POLL_SECONDS = 0.005

STATEMENTS = {
    "claim": ("SELECT FROM worker FOR UPDATE", "UPDATE job SET %started_at=coalesce(%"),
    "upload": ("LOCK TABLE ONLY blob_chunk IN SHARE MODE", "%INSERT INTO blob_chunk %"),
    "finish": ("LOCK TABLE attempt IN SHARE MODE", "UPDATE attempt SET %outcome=%"),
}
"""What to lock, and which statement then waits. A claim waits by its foreign key to its worker."""
WAITING = """
    SELECT a.pid, substr(a.application_name, 15) AS worker, a.backend_start, j.id::text AS job, j.attempt,
        EXISTS (SELECT FROM checkpoint c WHERE c.job_id = j.id AND c.attempt = j.attempt
                AND c.kind = 'final' AND c.complete) AS saved
    FROM pg_stat_activity a
    JOIN LATERAL (SELECT id FROM worker WHERE name = substr(a.application_name, 15)
                  ORDER BY started_at DESC LIMIT 1) w ON true
    LEFT JOIN job j ON j.worker_id = w.id AND j.state = 'running'
    WHERE a.application_name LIKE 'traind-worker-%%' AND a.wait_event_type = 'Lock' AND a.query LIKE %(statement)s
      AND NOT EXISTS (SELECT FROM pg_locks r WHERE r.pid = a.pid AND r.locktype = 'advisory')
"""
"""The reaper, which ends attempts by the same statement, has an advisory lock."""
ENDED = "SELECT outcome, coalesce(log, '') AS log FROM attempt WHERE job_id = %s AND number = %s"


@dataclass(frozen=True)
class Caught:
    """A kill: in which phase, as was proved, when, and the attempts that it was to end (none of a claim's)."""

    phase: str | None
    at: float
    attempts: tuple[tuple[str, int], ...]


def kill_in_statement(installation: Installation, phase: str) -> Caught | None:
    """`kill -9` a worker while it claims, uploads or finishes; None where none did so in time, or Postgres is away."""
    lock, statement = STATEMENTS[phase]
    deadline = time.monotonic() + HOLD_SECONDS
    with installation.connect() as looking, installation.connect() as holding, holding.transaction():
        holding.execute("SET LOCAL lock_timeout = '1s'")
        holding.execute(lock)
        while time.monotonic() < deadline:
            for row in looking.execute(WAITING, {"statement": statement}).fetchall():
                if (phase != "finish" or row.saved) and _kill(installation, row):
                    return Caught(phase, time.time(), () if phase == "claim" else ((row.job, row.attempt),))
            time.sleep(POLL_SECONDS)
    return None


def _kill(installation: Installation, row: Any) -> bool:
    """Kill the worker that the waiting connection belongs to, and wait for its end while the lock is still held."""
    victim = installation.program(row.worker)
    try:
        if victim is None or victim.create_time() > row.backend_start.timestamp():
            return False
        victim.kill()
        victim.wait(PROOF_SECONDS)
    except psutil.NoSuchProcess:
        return False
    return True


def abort(installation: Installation, trainer: Trainer) -> Caught:
    """SIGABRT a trainer, and learn from its traceback where it was."""
    os.kill(trainer.pid, signal.SIGABRT)
    at = time.time()
    deadline = time.monotonic() + PROOF_SECONDS
    row = None
    while time.monotonic() < deadline and (row is None or row.outcome is None):
        time.sleep(POLL_SECONDS)
        with installation.connect() as connection:
            row = connection.execute(ENDED, (trainer.job, trainer.attempt)).fetchone()
    return Caught(None if row is None else phase_of(row.log), at, ((trainer.job, trainer.attempt),))


def phase_of(log: str) -> str | None:
    """The phase that a trainer's last traceback tells of; None where there is none, or between phases."""
    if "Fatal Python error: Aborted" not in log:
        return None
    frames = set(re.findall(r'File "[^"]*/worker/training/(\w+)\.py", line \d+ in (\w+)', log))
    if ("evaluate", "evaluate") in frames:
        return "evaluate"
    if ("loop", "steps") in frames:
        return "step"
    return "load" if ("session", "prepare") in frames else None
