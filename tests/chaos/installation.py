"""A whole service on this machine with three workers, as `traind up` starts it, in a folder of its own.

Each process is kept by `local.process`: what dies is started again, and all of it dies with us, however we end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import namedtuple_row

from local import api_key, folders, listener, preparation, process
from local.process import Family, Kept, Program
from local.servers import Servers

WORKERS = ("chaos-1", "chaos-2", "chaos-3")
LEASE_SECONDS = 6.0
SETTINGS = {
    "TRAIND_LEASE_SECONDS": str(LEASE_SECONDS),
    "TRAIND_HEARTBEAT_SECONDS": "1",
    "TRAIND_IDLE_POLL_SECONDS": "0.5",
    "TRAIND_SUSPICION_SECONDS": "0.5",
    "TRAIND_REAP_INTERVAL_SECONDS": "0.2",
    "TRAIND_DRAIN_SECONDS": "5",
}
START_SECONDS = 120.0
LONGEST_DELAY_SECONDS = 1.0
"""Until a killed process is started again: half a minute is right for a service, but not for a run of that length."""


class Installation:
    """Runs from entering the context to leaving it. Settings of the caller's environment are left aside."""

    url: str
    api_key: str
    database_url: str

    def __init__(self, data_dir: Path, report: Callable[[str], None]) -> None:
        self.data_dir, self.scratch = data_dir, data_dir / "scratch"
        self._report = report
        self._ended = ExitStack()

    def __enter__(self) -> Installation:
        process.LONGEST_DELAY_SECONDS = LONGEST_DELAY_SECONDS
        with ExitStack() as started:
            self._start(started)
            self._ended = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def _start(self, started: ExitStack) -> None:
        folders.make(self.data_dir)
        family = Family()
        started.callback(family.close)
        listening = started.enter_context(listener.Listener("127.0.0.1", 0))
        servers = started.enter_context(Servers(self.data_dir, family, report=self._report))
        self.url, self.database_url = listening.url, servers.database_url
        preparation.migrate(self.database_url)
        self.api_key = api_key.ensure(self.data_dir, self.database_url)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRAIND_")} | SETTINGS
        environment |= {"TRAIND_DATABASE_URL": self.database_url, "TRAIND_REDIS_URL": servers.redis_url}
        environment |= {"TRAIND_SCRATCH_DIR": str(self.scratch)}
        fd = listening.fileno()
        programs = [self._program(name, ["worker", "--name", name], environment) for name in WORKERS]
        programs.append(self._program("api", ["api", "--fd", str(fd)], environment, pass_fds=(fd,)))
        kept = [Kept(family, program, report=self._report) for program in programs]
        for each in kept:
            started.callback(each.stop)
        kept[-1].wait_ready(lambda: listener.answers(self.url, "/readyz"), timeout_seconds=START_SECONDS)
        for each in kept[:-1]:
            each.wait_ready(partial(_is_ready, each.program.log), timeout_seconds=START_SECONDS)

    def _program(
        self, name: str, arguments: list[str], environment: dict[str, str], *, pass_fds: tuple[int, ...] = ()
    ) -> Program:
        return Program(
            name=name,
            argv=[sys.executable, "-P", "-m", *arguments],
            log=folders.logs(self.data_dir) / f"{name}.log",
            cwd=Path.cwd(),
            environment=environment,
            stop=[(signal.SIGTERM, 30.0)],
            pass_fds=pass_fds,
        )

    def program(self, name: str) -> psutil.Process | None:
        """The running process of a worker, "api", "postgres" or "redis"; None while it is being started again."""
        for guard in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                if guard.cmdline()[4] == name and guard.cmdline()[3].endswith("guard.py"):
                    own = [child for child in guard.children() if not _left_behind(child)]
                    return own[0]
        return None

    def fork_server(self, worker: str) -> psutil.Process | None:
        """The process that starts the worker's trainers."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if (program := self.program(worker)) is not None:
                below = [child for child in program.children() if "multiprocessing.forkserver" in _text(child)]
                return below[0] if below else None
        return None

    def connect(self) -> psycopg.Connection[Any]:
        """An autocommitting connection of our own. Raises OperationalError while Postgres is away."""
        url, rows = self.database_url, namedtuple_row
        return psycopg.connect(url, autocommit=True, row_factory=rows, application_name="chaos", connect_timeout=5)


def _is_ready(log: Path) -> bool:
    return log.exists() and "worker ready" in log.read_text()


def _left_behind(process: psutil.Process) -> bool:
    """Of a killed worker or a killed Postgres: what it had started, on its way out."""
    text = _text(process)
    return "multiprocessing" in text or text.startswith("postgres: ") or process.status() == psutil.STATUS_ZOMBIE


def _text(process: psutil.Process) -> str:
    return " ".join(process.cmdline())
