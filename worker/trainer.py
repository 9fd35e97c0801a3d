"""The trainer of one attempt: a process that may not have started yet, and may run no longer than it is allowed to.

The heartbeat moves the allowance forward, freezes the trainer while the lease cannot be renewed, and thaws it; the
attempt starts it, reads its link and ends it. Every order works in every order: a trainer that was killed or frozen
before its start stays so.
"""

from __future__ import annotations

import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from worker.clock import boottime
from worker.process import Exit, Process, StartFailed, start
from worker.training.messages import RunUntil, Stop, StopKind, encode


class Killed(Exception):
    """The trainer was killed before it had started."""


class Trainer:
    """Until `start`, an intention; `close` in the end."""

    def __init__(self, run_until: float) -> None:
        self._run_until = run_until
        self._ran_out = False
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._frozen = False
        self._awake_since = time.monotonic()
        self._killed = False

    def start(self, job: str, log_path: Path) -> Connection:
        """Start the process and return its link. Raises StartFailed, or Killed where `kill` came first or meanwhile."""
        try:
            process = start(job, log_path, wanted=lambda: not self._killed)
        except StartFailed:
            if self._killed:
                raise Killed from None
            raise
        with self._lock:
            self._process = process
            process.send(encode(RunUntil(self._run_until)))
            if self._frozen:
                process.signal(signal.SIGSTOP)
            if self._killed:
                process.kill()
                raise Killed
        return process.link

    @property
    def ran_out(self) -> bool:
        """Whether its time came while it ran, and so its end, also where more was allowed afterwards."""
        with self._lock:
            return self._ran_out or self._is_over()

    def _is_over(self) -> bool:
        return self._process is not None and boottime() >= self._run_until

    def extend(self, run_until: float) -> None:
        """Allow it to run until then (in seconds of `worker.clock.boottime`), and thaw it."""
        with self._lock:
            self._ran_out = self._ran_out or self._is_over()
            self._run_until = run_until
            if self._process is not None:
                self._process.send(encode(RunUntil(run_until)))
                if self._frozen:
                    self._process.signal(signal.SIGCONT)
            if self._frozen:
                self._frozen = False
                self._awake_since = time.monotonic()

    def freeze(self) -> None:
        """Let nothing be computed until `extend`."""
        with self._lock:
            self._frozen = True
            if self._process is not None:
                self._process.signal(signal.SIGSTOP)

    def silence(self, heard_at: float) -> float:
        """For how many seconds it could have spoken and did not, if it was last heard at `heard_at` (monotonic)."""
        with self._lock:
            return 0.0 if self._frozen else time.monotonic() - max(heard_at, self._awake_since)

    def ask_to_stop(self, kind: StopKind | None) -> None:
        """Have it stop at its next safe point, also when it is thawed only later; None takes that back."""
        with self._lock:
            if self._process is not None:
                self._process.send(encode(Stop(kind)))

    def kill(self) -> None:
        """End it at once, now or when it starts."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def wait(self, timeout_seconds: float) -> Exit | None:
        """How the process ended; None where it still runs after the timeout, or was never started."""
        if self._process is None or not self._process.wait(timeout_seconds):
            return None
        return self._process.exit()

    def close(self) -> None:
        """Kill what still runs, and give the descriptors back."""
        self.kill()
        if self._process is not None:
            self._process.close()
