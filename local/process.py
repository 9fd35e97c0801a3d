"""Processes that can't outlive us: each runs under a guard (guard.py) that holds the read end of one death pipe.

`Family` owns the pipe; `Family.start` runs a `Program` once; `Kept` keeps one running, restarted with back-off.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local import guard
from local.account import Account
from local.errors import StartFailed

Steps = Sequence[tuple[signal.Signals, float]]

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
LOG_BYTES = 10_000_000
LOG_TAIL_LINES = 15


@dataclass(frozen=True)
class Program:
    """What to run, as whom, and how it ends: `stop` in order, `orphaned` when we are gone (signal, seconds until
    the next; SIGKILL comes after the last).
    """

    name: str
    argv: Sequence[str]
    log: Path
    cwd: Path
    environment: Mapping[str, str] = field(repr=False)
    stop: Steps
    orphaned: Steps = ()
    account: Account | None = None
    pass_fds: Sequence[int] = ()

    def log_tail(self) -> str:
        """The last lines of the log, for an error's text."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


class Family:
    """The death pipe: while we hold its write end our processes live. `held_fds` stay open in the guards."""

    def __init__(self, held_fds: Sequence[int] = ()) -> None:
        self._read, self._write = os.pipe()
        self._held = tuple(held_fds)

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        """Start the program under a guard. The Popen is the guard's: SIGTERM to it runs the steps of `stop`."""
        account = program.account
        document = {
            "argv": list(program.argv),
            "log": str(program.log),
            "log_bytes": LOG_BYTES,
            "cwd": str(program.cwd),
            "account": [account.uid, account.gid] if account else None,
            "stop": list(program.stop),
            "orphaned": list(program.orphaned),
            "death_fd": self._read,
            "pass_fds": list(program.pass_fds),
        }
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, program.name, json.dumps(document)],
            env=program.environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(self._read, *self._held, *program.pass_fds),
        )

    def close(self) -> None:
        """Let go: whatever still runs ends by its steps of `orphaned`."""
        os.close(self._write)
        os.close(self._read)


class Kept:
    """One program kept running by a thread of its own: restarted when it ends, with back-off, until `stop()`."""

    def __init__(self, family: Family, program: Program, *, report: Callable[[str], None]) -> None:
        self.program = program
        self._family, self._report = family, report
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process = family.start(program)
        self._thread = threading.Thread(target=self._keep, name=f"keep-{program.name}", daemon=True)
        self._thread.start()

    @property
    def restarting(self) -> bool:
        """Whether the program is not running just now."""
        return self._process.poll() is not None

    def _keep(self) -> None:
        delay = FIRST_DELAY_SECONDS
        while True:
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > HEALTHY_SECONDS:
                delay = FIRST_DELAY_SECONDS
            self._report(
                f"{self.program.name} {ended(code)}; starting it again in {delay:g} s (log: {self.program.log})"
            )
            if self._stopping.wait(delay):
                return
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)
            self._start_again()

    def _start_again(self) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            try:
                self._process = self._family.start(self.program)
            except OSError as error:  # no memory, no process to be had: the next turn tries again
                self._report(f"{self.program.name} can't be started: {error}")

    def stop(self) -> None:
        """End it by its steps, and wait for that."""
        with self._lock:
            self._stopping.set()
            self._process.terminate()
        self._thread.join()
        self._process.wait()

    def wait_ready(self, ready: Callable[[], bool], *, timeout_seconds: float) -> None:
        """Until `ready()`. Raises StartFailed with the end of the log when the program ends first, or too late."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if self.restarting or time.monotonic() > deadline:
                how = ended(self._process.poll())
                raise StartFailed(
                    f"{self.program.name} {how}. The end of {self.program.log}:\n{self.program.log_tail()}"
                )
            time.sleep(0.02)


def ended(code: int | None) -> str:
    """In words how a guarded program ended, from its guard's exit status."""
    if code is None:
        return "did not come up in time"
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(code - 128).name}"
    return f"ended with status {code}" if code >= 0 else f"and its guard were ended by signal {-code}"
