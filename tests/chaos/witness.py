"""Which trainers compute, as the kernel says: no word of the service is taken for it.

A thread looks at /proc about fifty times a second. A trainer is known by its output, which goes to
SCRATCH/worker-ID/JOB-ATTEMPT/trainer.log, and it computes where its CPU time grows. From the moment that a job's next
trainer is there, the one before may not compute any more.
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

LOOK_SECONDS = 0.02
TOLERANCE_NS = 20_000_000
"""CPU time is told with a delay of a few clock ticks."""
PF_EXITING = 0x4
LOG = re.compile(r"/worker-[0-9a-f-]{36}/([0-9a-f-]{36})-(\d+)/trainer\.log( \(deleted\))?$")
"""Deleted, or beside the folder, if that was swept away a moment ago."""


@dataclass
class Trainer:
    """A trainer process that was met; `cpu_ns` and `stopped` are as of the last look."""

    pid: int
    job: str
    attempt: int
    met_at: float
    cpu_ns: int = 0
    stopped: bool = False
    superseded_at_ns: int | None = None

    def __str__(self) -> str:
        return f"attempt {self.attempt} of job {self.job} (process {self.pid})"


@dataclass
class Witness:
    """Looks from entering the context to leaving it. Times are those of time.time()."""

    scratch: Path
    looks: int = 0
    longest_gap_seconds: float = 0.0
    met: list[Trainer] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._alive: dict[int, Trainer] = {}
        self._strangers: set[int] = set()
        self._newest: dict[str, Trainer] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def running(self) -> list[Trainer]:
        """The trainers that were there at the last look."""
        return list(self._alive.values())

    def find(self, job: str, attempt: int) -> Trainer | None:
        """The living trainer of that attempt."""
        return next((t for t in self.running() if (t.job, t.attempt) == (job, attempt)), None)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._leaving.wait(LOOK_SECONDS):
            self.look()
            now = time.monotonic()
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - last)
            last = now

    def look(self) -> None:
        """Meet those who are new, then watch all."""
        self.looks += 1
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208  ten times as fast
        self._strangers &= pids
        for pid in sorted(pids - self._strangers - self._alive.keys()):
            self._meet(pid)
        for trainer in self.running():
            if not self._watch(trainer):
                del self._alive[trainer.pid]
                self._strangers.add(trainer.pid)

    def _meet(self, pid: int) -> None:
        try:
            if b"multiprocessing.forkserver" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                self._strangers.add(pid)
                return
            output = Path(f"/proc/{pid}/fd/1").readlink()
            parent = int(_stat(pid)[1])
        except (OSError, IndexError):
            return
        found = LOG.search(str(output))
        if found and str(output).startswith(str(self.scratch)) and parent not in self._alive:
            trainer = Trainer(pid, found[1], int(found[2]), time.time())
            self.met.append(trainer)
            self._alive[pid] = trainer
            if trainer.attempt >= self._newest.setdefault(trainer.job, trainer).attempt:
                self._newest[trainer.job] = trainer

    def _watch(self, trainer: Trainer) -> bool:
        """Whether it still lives."""
        try:
            stat = _stat(trainer.pid)
            cpu_ns = int(Path(f"/proc/{trainer.pid}/schedstat").read_bytes().split()[0])
        except (OSError, IndexError):
            return False
        if stat[0] in b"ZX" or int(stat[6]) & PF_EXITING:
            return False
        trainer.cpu_ns, trainer.stopped = cpu_ns, stat[0] == b"T"
        newest = self._newest[trainer.job]
        if trainer is not newest:
            self._judge(trainer, newest)
        return True

    def _judge(self, trainer: Trainer, newest: Trainer) -> None:
        if trainer.superseded_at_ns is None:
            trainer.superseded_at_ns = trainer.cpu_ns
        elif trainer.cpu_ns - trainer.superseded_at_ns > TOLERANCE_NS:
            self.violations.append(f"run twice at once: {trainer} computes beside {newest}")
            trainer.superseded_at_ns = trainer.cpu_ns


def _stat(pid: int) -> list[bytes]:
    """Of proc_pid_stat(5) the fields from the third on: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()


def processes_of(data_dir: Path) -> list[str]:
    """Every process that has the folder in its arguments or its environment, as "PID COMMAND"."""
    sought, found = os.fsencode(data_dir), []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes()
            if folder.name.isdigit() and (sought in command or sought in (folder / "environ").read_bytes()):
                found.append(f"{folder.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:80]}")
        except OSError:
            continue
    return found
