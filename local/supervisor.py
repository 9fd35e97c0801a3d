"""A whole traind service on this machine: servers, migration, key, api and worker, and their end.

    with Service(data_dir, port=0) as service:
        Client(service.url, service.api_key)...

`traind up`, the demo and the tests use this class.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from jobs.environment import unread_variables
from jobs.settings import load
from local import api_key, folders, listener, preparation, redis, running
from local.errors import AlreadyRunning
from local.process import Family, Kept, Program, Steps
from local.servers import Servers
from local.worker_state import WorkerState
from traind import service

LOCK_PATIENCE_SECONDS = 60.0
API_START_SECONDS = 60.0
WORKER_START_SECONDS = 180.0  # torch is imported; from a cold network disk that takes minutes
STOP_MARGIN_SECONDS = 10.0


class Service:
    """Starts everything on entry (returns when the API answers /readyz and the worker takes jobs, or has said why it
    cannot), stops it in order on exit.

    data_dir     made if it is missing; an existing one must be empty or a data folder of ours. NOT removed on exit.
    port         0: any free one; None: the setting's (8321), or any free one where that is taken; a number: that
                 one, or an error.
    environment  extra variables for api and worker, e.g. {"TRAIND_FASHION_MNIST_DIR": ...}.
    ballast      True: a file in the data folder keeps room for the day when the disk is full (local/disk.py).
    worker       False: no worker is started; jobs wait, and can be read, cancelled and deleted.
    report       called with one line of text for what an operator wants to see (a restart, a slow recovery, a
                 worker that falls ill), from any thread.

    TRAIND_DATABASE_URL and TRAIND_REDIS_URL each replace an embedded server. Everything that it starts dies with the
    process that entered it, even by kill -9: no clean-up is needed for that. It installs no signal handlers:
    `with stop_signals():` (local/signals.py) turns SIGTERM and SIGHUP into KeyboardInterrupt, so that `with` blocks
    end in order. Raises local.errors.LocalError (a TraindError): AlreadyRunning, DataDirError, ServerMissing …
    """

    url: str  # "http://127.0.0.1:40123"
    api_key: str
    data_dir: Path
    log_dir: Path  # api.log, worker.log, postgres.log, redis.log

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str | None = None,
        port: int | None = 0,
        environment: Mapping[str, str] | None = None,
        redis_source: redis.Source = "any",
        ballast: bool = False,
        worker: bool = True,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_dir = self.data_dir / "logs"
        self._settings = load()
        self._host, self._port = host or self._settings.host, port
        self._extra = dict(environment or {})
        self._redis_source: redis.Source = redis_source
        self._with_worker, self._with_ballast = worker, ballast
        self._report = report
        self._ended = ExitStack()
        for line in unread_variables():
            report(line)

    def __enter__(self) -> Service:
        with ExitStack() as started:
            self._start(started)
            self._ended = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.close()

    def _start(self, started: ExitStack) -> None:
        folders.make(self.data_dir)
        lock = self._lock()
        started.callback(os.close, lock)
        started.callback(service.remove, self.data_dir)
        family = Family(held_fds=[lock])
        started.callback(family.close)
        listening = started.enter_context(self._listen())
        servers = started.enter_context(self._servers(family))
        preparation.migrate(servers.database_url)
        self.api_key = api_key.ensure(self.data_dir, servers.database_url)
        self._start_ours(started, family, servers, listening.fileno())
        service.write(running.info(url=self.url, api_key=self.api_key, data_dir=self.data_dir))

    def _lock(self) -> int:
        lock = folders.lock(
            self.data_dir,
            patience_seconds=LOCK_PATIENCE_SECONDS,
            busy=lambda: running.find(self.data_dir) is not None,
        )
        if lock is None:
            info = running.find(self.data_dir)
            where = f" at {info.url} (process {info.pid})" if info else ""
            raise AlreadyRunning(f"a service already runs in {self.data_dir}{where}; end it with: traind down")
        return lock

    def _listen(self) -> listener.Listener:
        if self._port is None:
            wanted = self._settings.port
            if not listener.is_free(self._host, wanted):
                self._report(f"port {wanted} is taken; using another")
                wanted = 0
        else:
            wanted = self._port
        listening = listener.Listener(self._host, wanted)
        self.url = listening.url
        return listening

    def _servers(self, family: Family) -> Servers:
        given = self._settings.database_url, self._settings.redis_url
        return Servers(
            self.data_dir,
            database_url=given[0].get_secret_value() if given[0] else None,
            redis_url=given[1].get_secret_value() if given[1] else None,
            redis_source=self._redis_source,
            family=family,
            ballast=self._with_ballast,
            min_free_bytes=self._settings.min_free_disk_bytes,
            report=self._report,
        )

    def _start_ours(self, started: ExitStack, family: Family, servers: Servers, listening_fd: int) -> None:
        """Worker first, so that the API stops first."""
        environment = {
            **os.environ,
            "TRAIND_SCRATCH_DIR": os.environ.get("TRAIND_SCRATCH_DIR") or str(self.data_dir / "scratch"),
            **self._extra,
            "TRAIND_DATABASE_URL": servers.database_url,
            "TRAIND_REDIS_URL": servers.redis_url,
        }
        state = WorkerState(self._report)
        started.callback(state.close)
        programs = [self._api(environment, listening_fd)]
        if self._with_worker:
            programs.insert(0, self._worker(environment, state.told_fd))
        kept = [Kept(family, program, report=self._report) for program in programs]
        for each in kept:
            started.callback(each.stop)
        kept[-1].wait_ready(lambda: listener.answers(self.url, "/readyz"), timeout_seconds=API_START_SECONDS)
        if self._with_worker:
            kept[0].wait_ready(state.ready, timeout_seconds=WORKER_START_SECONDS)

    def _worker(self, environment: Mapping[str, str], told_fd: int) -> Program:
        drain = self._settings.drain_seconds + STOP_MARGIN_SECONDS
        return self._program(
            "worker", ["--tell-fd", str(told_fd)], environment, stop=[(signal.SIGTERM, drain)], pass_fds=[told_fd]
        )

    def _api(self, environment: Mapping[str, str], listening_fd: int) -> Program:
        return self._program(
            "api",
            ["--fd", str(listening_fd)],
            environment,
            stop=[(signal.SIGTERM, STOP_MARGIN_SECONDS)],
            pass_fds=[listening_fd],
        )

    def _program(
        self,
        room: str,
        arguments: list[str],
        environment: Mapping[str, str],
        *,
        stop: Steps,
        pass_fds: tuple[int, ...] | list[int] = (),
    ) -> Program:
        """`python -m ROOM`, without the current folder on the path. It is built to be killed, once we are gone."""
        return Program(
            name=room,
            argv=[sys.executable, "-P", "-m", room, *arguments],
            log=folders.logs(self.data_dir) / f"{room}.log",
            cwd=Path.cwd(),
            environment=environment,
            stop=stop,
            pass_fds=pass_fds,
        )
