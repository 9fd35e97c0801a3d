"""What is done to the service: every kind and every phase once, in an order drawn from the seed, then at random."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg

from tests.chaos.installation import LEASE_SECONDS, WORKERS, Installation
from tests.chaos.phases import PHASES, POLL_SECONDS, STATEMENTS, Caught, abort, kill_in_statement
from tests.chaos.specs import LONG
from tests.chaos.witness import Trainer, Witness

T = TypeVar("T")
KINDS = ("worker", "trainer", "fork-server", "api", "redis", "postgres", "stop", "short-stop", "sweep", "ill")
LONG_STOP_SECONDS = LEASE_SECONDS + 9
SHORT_STOP_SECONDS = 1.5
ILL_SECONDS = 15.0
"""At most; it lasts until a worker has said that it is ill, which it does every few seconds."""
SEARCH_SECONDS = 6.0
BACK_SECONDS = 90.0
EXTRA_SECONDS = 120.0
"""How much longer than asked it may take until every kind and every phase was hit."""
SPARED_CRASHES = 2
"""A job that crashed so often waits before it goes on: others are hit first."""
RUNNING = """
    SELECT j.id::text AS job, j.attempt, j.name, w.name AS worker, w.started_at, j.phase,
        j.observed_step BETWEEN 1 AND j.total_steps / 3 AS early
    FROM job j JOIN worker w ON w.id = j.worker_id WHERE j.state = 'running' ORDER BY j.crash_count >= %s, random()
"""
ILL = "SELECT trouble FROM worker WHERE stopped_at IS NULL AND trouble LIKE 'the scratch folder %'"
MOVED = "SELECT id FROM job WHERE updated_at > to_timestamp(%s)"


@dataclass(frozen=True)
class Hit:
    """Something that was done, to what, and the attempts that it should have ended."""

    kind: str
    caught: Caught


class Mischief:
    """`run` does it all, in the caller's thread. Each act returns whether it found a victim."""

    def __init__(
        self, installation: Installation, witness: Witness, chance: random.Random, report: Callable[[str], None]
    ) -> None:
        self._installation, self._witness = installation, witness
        self._chance, self._report = chance, report
        self._postgres_signals = [signal.SIGINT, signal.SIGKILL, signal.SIGQUIT]
        self.hits: list[Hit] = []
        self.postgres_seconds: list[float] = []
        self.violations: list[str] = []

    @property
    def kinds(self) -> Counter[str]:
        return Counter(hit.kind for hit in self.hits)

    @property
    def phases(self) -> Counter[str]:
        return Counter(hit.caught.phase for hit in self.hits if hit.caught.phase)

    def missed(self) -> list[str]:
        """The kinds and the phases that were not hit yet."""
        return [kind for kind in KINDS if not self.kinds[kind]] + [p for p in PHASES if not self.phases[p]]

    def run(self, seconds: float) -> None:
        """Do mischief for so long, and on until nothing is missed."""
        acts = self._acts()
        self._search(self._running)
        began = time.monotonic()
        plan = ["stop", *self._chance.sample([name for name in acts if name != "stop"], len(acts) - 1)]
        while (past := time.monotonic() - began) < seconds or (self.missed() and past < seconds + EXTRA_SECONDS):
            plan = plan or (self.missed() if past > seconds else [self._chance.choice(list(acts))])
            self._act(plan.pop(0), acts)
            time.sleep(self._chance.uniform(0.2, 1.2))

    def _acts(self) -> dict[str, Callable[[], bool]]:
        held = {phase: partial(self._kill_in_statement, phase) for phase in STATEMENTS}
        return held | {
            "load": self._abort_loading,
            "step": partial(self._abort_in, "train"),
            "evaluate": partial(self._abort_in, "evaluate"),
            "worker": self._kill_worker,
            "trainer": self._kill_trainer,
            "fork-server": self._kill_fork_server,
            "api": partial(self._kill_program, "api"),
            "redis": partial(self._kill_program, "redis"),
            "postgres": self._restart_postgres,
            "stop": self._stop_worker,
            "short-stop": self._stop_shortly,
            "sweep": self._sweep,
            "ill": self._make_ill,
        }

    def _act(self, name: str, acts: dict[str, Callable[[], bool]]) -> None:
        try:
            found = acts[name]()
        except (psycopg.OperationalError, psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            found = (
                False  # the victim was gone first, Postgres is not back yet, or nobody has made a new scratch folder
            )
        except psutil.TimeoutExpired as problem:
            found = True
            self.violations.append(f"{name}: {problem}")
        if not found:
            self._report(f"{name}: no victim just now")

    def _hit(self, kind: str, text: str, *attempts: tuple[str, int]) -> bool:
        return self._caught(kind, text, Caught(None, time.time(), attempts))

    def _caught(self, kind: str, text: str, caught: Caught) -> bool:
        self.hits.append(Hit(kind, caught))
        whom = ", ".join(f"job {job[-6:]} attempt {attempt}" for job, attempt in caught.attempts)
        self._report(f"{text}{f' ({whom})' if whom else ''}")
        return True

    def _running(self) -> list[Any]:
        """Running attempts and their workers, those first that crashed seldom."""
        with self._installation.connect() as connection:
            return connection.execute(RUNNING, (SPARED_CRASHES,)).fetchall()

    def _worker_of(self, row: Any) -> psutil.Process | None:
        """The process that holds the attempt; not the one that was started in its place."""
        process = self._installation.program(row.worker)
        return process if process and process.create_time() < row.started_at.timestamp() else None

    def _kill_in_statement(self, phase: str) -> bool:
        caught = kill_in_statement(self._installation, phase)
        return caught is not None and self._caught("worker", f"kill -9 of a worker in {phase}", caught)

    def _abort_loading(self) -> bool:
        """The next trainer that is met, as soon as it is."""
        seen = len(self._witness.met)
        trainers = self._search(lambda: self._witness.met[seen:])
        return bool(trainers) and self._abort(trainers[0])

    def _abort_in(self, shown: str) -> bool:
        """A trainer whose job is said to be in that phase; the traceback tells whether it was."""

        def look() -> list[Trainer]:
            rows = [row for row in self._running() if row.phase == shown]
            found = [self._witness.find(row.job, row.attempt) for row in rows]
            return [trainer for trainer in found if trainer is not None and not trainer.stopped]

        trainers = self._search(look)
        return bool(trainers) and self._abort(trainers[0])

    def _search(self, look: Callable[[], list[T]]) -> list[T]:
        """What `look` finds, as soon as it finds something."""
        deadline = time.monotonic() + SEARCH_SECONDS
        while not (found := look()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return found

    def _abort(self, trainer: Trainer) -> bool:
        caught = abort(self._installation, trainer)
        return self._caught("trainer", f"abort of a trainer in {caught.phase or 'no known phase'}", caught)

    def _kill_worker(self) -> bool:
        for row in self._running():
            if process := self._worker_of(row):
                process.kill()
                return self._hit("worker", f"kill -9 of {row.worker} in {row.phase}", (row.job, row.attempt))
        return False

    def _kill_trainer(self) -> bool:
        for row in self._running():
            if trainer := self._witness.find(row.job, row.attempt):
                os.kill(trainer.pid, signal.SIGKILL)
                return self._hit("trainer", f"kill -9 of a trainer in {row.phase}", (row.job, row.attempt))
        return False

    def _kill_fork_server(self) -> bool:
        worker = self._chance.choice(WORKERS)
        if process := self._installation.fork_server(worker):
            process.kill()
            return self._hit("fork-server", f"kill -9 of the fork server of {worker}")
        return False

    def _kill_program(self, name: str) -> bool:
        if process := self._installation.program(name):
            process.kill()
            return self._hit(name, f"kill -9 of {name}")
        return False

    def _restart_postgres(self) -> bool:
        """Fast, by kill -9, or immediate; and wait until jobs move again."""
        process = self._installation.program("postgres")
        if process is None:
            return False
        number = self._postgres_signals.pop(0)
        self._postgres_signals.append(number)
        at = time.time()
        process.send_signal(number)
        self._hit("postgres", f"{number.name} to postgres")
        process.wait(BACK_SECONDS)
        ended_at = time.time()
        while time.time() < at + BACK_SECONDS:
            time.sleep(POLL_SECONDS)
            with suppress(psycopg.OperationalError), self._installation.connect() as connection:
                if connection.execute(MOVED, (ended_at,)).fetchone():
                    self.postgres_seconds.append(time.time() - at)
                    break
        return True

    def _stop_worker(self) -> bool:
        """Beyond its lease, and until the job's next attempt has run for a second beside what is left of this one."""
        rows = self._search(lambda: [each for each in self._running() if each.name == LONG and each.early])
        process = self._worker_of(rows[0]) if rows else None
        if process is None:
            return False
        job, attempt, worker = rows[0].job, rows[0].attempt, rows[0].worker

        def over() -> bool:
            next_ones = [t for t in self._witness.running() if t.job == job and t.attempt > attempt]
            return any(time.time() > trainer.met_at + 1.0 for trainer in next_ones)

        self._hit("stop", f"SIGSTOP to {worker}, beyond its lease", (job, attempt))
        self._stop(process, over, LONG_STOP_SECONDS)
        return True

    def _stop_shortly(self) -> bool:
        """A trainer, its worker, or the api."""
        rows = self._running()
        names = [rows[0].worker, "api"] if rows else ["api"]
        victims = {name: self._installation.program(name) for name in names}
        trainer = self._witness.find(rows[0].job, rows[0].attempt) if rows else None
        if trainer is not None and not trainer.stopped:
            victims["a trainer"] = psutil.Process(trainer.pid)
        name = self._chance.choice(sorted(victims))
        process = victims[name]
        if process is None:
            return False
        self._hit("short-stop", f"SIGSTOP to {name} for {SHORT_STOP_SECONDS} s")
        self._stop(process, lambda: False, SHORT_STOP_SECONDS)
        return True

    def _sweep(self) -> bool:
        """The scratch folder goes, as by a cleaner of temporary files, under jobs that train."""
        if not self._search(lambda: [row for row in self._running() if row.phase == "train"]):
            return False
        with self._scratch_away():
            pass
        return self._hit("sweep", "the scratch folder swept away")

    def _make_ill(self) -> bool:
        """The scratch folder cannot be used until a worker says that it is ill; then it is back as it was, or empty."""
        if not self._search(self._running):
            return False
        deadline, said = time.monotonic() + ILL_SECONDS, False
        gives_back = self._chance.random() < 0.5
        with self._scratch_away(gives_back=gives_back) as scratch:
            scratch.touch()
            while not said and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                with suppress(psycopg.OperationalError), self._installation.connect() as connection:
                    said = connection.execute(ILL).fetchone() is not None
            scratch.unlink()
        if not said:
            self.violations.append(f"no worker said that it is ill within {ILL_SECONDS:g} s")
        return self._hit("ill", f"no scratch folder for a while, then {'the same' if gives_back else 'an empty one'}")

    @contextmanager
    def _scratch_away(self, *, gives_back: bool = False) -> Iterator[Path]:
        """Given back in the end as it was, unless a worker was quicker to make a new one; or removed."""
        scratch = self._installation.scratch
        away = scratch.with_name(f"{scratch.name}-away")
        scratch.rename(away)
        try:
            yield scratch
        finally:
            if gives_back:
                with suppress(OSError):
                    away.rename(scratch)
            shutil.rmtree(away, ignore_errors=True)

    def _stop(self, process: psutil.Process, over: Callable[[], bool], at_most_seconds: float) -> None:
        deadline = time.monotonic() + at_most_seconds
        process.suspend()
        try:
            while not over() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            process.resume()
