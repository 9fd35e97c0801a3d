"""Worker processes for tests, with the processes below them; all of them are gone when the context is left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil

from tests.worker import warm
from tests.worker.service import PATIENT, until
from tests.worker.warm import Lent
from worker.clock import boottime

_LIBC = ctypes.CDLL(None)  # loaded before any fork
SHORT = {
    "LEASE_SECONDS": "10",
    "HEARTBEAT_SECONDS": "3",
    "SUSPICION_SECONDS": "0.5",
    "REAP_INTERVAL_SECONDS": "0.2",
    "IDLE_POLL_SECONDS": "1",
    "LOG_FORMAT": "console",
}
"""Settings under which a lost worker is missed soon; heartbeats are too rare for a cancel to wait for one."""


@dataclass(frozen=True)
class Worker:
    """A worker process; its log and its scratch folder are its own."""

    process: subprocess.Popen[bytes] | Lent
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def fork_server(self) -> psutil.Process:
        return next(p for p in psutil.Process(self.pid).children() if "forkserver" in " ".join(p.cmdline()))

    def trainer(self) -> psutil.Process:
        """The trainer process, as soon as there is one."""
        return until(lambda: self.fork_server().children(), bool)[0]

    def wait_log(self, text: str) -> None:
        until(lambda: self.log, lambda log: text in log or self.process.poll() is not None)
        assert text in self.log, self.log


def is_dead(process: psutil.Process) -> bool:
    """Gone, or a zombie that its parent has not collected yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_dead(process: psutil.Process) -> None:
    until(lambda: is_dead(process), bool)


@contextmanager
def held(process: psutil.Process) -> Iterator[None]:
    """Stopped meanwhile: it gets no further than it is."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def cpu_seconds(process: psutil.Process) -> float:
    """What it has computed so far, as the kernel counts it (in hundredths of a second)."""
    times = process.cpu_times()
    return float(times.user + times.system)


def born_at(process: psutil.Process) -> float:
    """When it was started, in seconds of `worker.clock.boottime` (in hundredths, rounded down)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def last_alive(process: psutil.Process) -> float:
    """Waits for its end; until when (in the same seconds) it was seen to run, which is at most its end."""
    seen = [boottime()]

    def ended() -> bool:
        looked = boottime()
        if is_dead(process):
            return True
        seen[0] = looked
        return False

    until(ended, bool)
    return seen[0]


@contextmanager
def start_worker(
    database_url: str,
    redis_url: str,
    folder: Path,
    *arguments: str,
    ready: bool = True,
    cold: bool = False,
    **settings: str,
) -> Iterator[Worker]:
    """A worker in a session of its own, in `folder`; `settings` are TRAIND_… variables, SHORT by default.

    It is lent by the warm process, or else, and if it is to be `cold`, started as a user starts one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given = SHORT | {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "SCRATCH_DIR": str(folder / "scratch")}
    given |= {"CACHE_DIR": str(folder / "cache"), "FASHION_MNIST_DIR": str(folder / "no-such-folder")}
    environment = os.environ | {f"TRAIND_{name}": value for name, value in (given | settings).items()}
    with (folder / "log").open("wb") as log:
        process = _start(["--name", folder.name, *arguments], environment, log, cold=cold)
    worker = Worker(process, folder)
    try:
        if ready:
            worker.wait_log("worker ready")
        yield worker
    finally:
        _end(process)


def _die_with_the_tests() -> None:
    """On Linux: if the process that runs the tests is killed, its worker is too."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _start(
    arguments: list[str], environment: dict[str, str], log: BinaryIO, *, cold: bool
) -> subprocess.Popen[bytes] | Lent:
    path = warm.where()
    if path and not cold and warm.fits(environment):
        return Lent(path, arguments, environment, log.fileno())
    return subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_the_tests,  # noqa: PLW1509  one system call
    )


def _end(process: subprocess.Popen[bytes] | Lent) -> None:
    """Kill the worker, its group and everything that descends from it; the latter should be gone by itself."""
    below = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(below, timeout=PATIENT)
    for orphan in alive:
        orphan.kill()
    assert not alive, f"left behind: {alive}"
