"""The servers that a local service needs, started where no setting names others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from local import account as accounts
from local import disk, folders, postgres, redis
from local.account import Account
from local.errors import StartFailed
from local.process import Family, Kept, Program


class Servers:
    """Embedded Postgres and Redis in one data folder; with `database_url` or `redis_url` that server instead.

    The caller holds the folder's lock. With `ballast` Postgres keeps a reserve for a full disk, above the floor
    `min_free_bytes`. Not `durable` is for tests. Raises LocalError.
    """

    database_url: str
    redis_url: str

    def __init__(
        self,
        data_dir: Path,
        family: Family,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        redis_source: redis.Source = "any",
        durable: bool = True,
        ballast: bool = False,
        min_free_bytes: int | None = None,
        report: Callable[[str], None],
    ) -> None:
        self.data_dir, self._family = data_dir, family
        self._given = database_url, redis_url
        self._redis_source: redis.Source = redis_source
        self._durable, self._report = durable, report
        self._with_ballast, self._floor = ballast, min_free_bytes
        self._ended = ExitStack()

    def __enter__(self) -> Servers:
        with ExitStack() as started:
            self._start(started)
            self._ended = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.close()

    def _start(self, started: ExitStack) -> None:
        database_url, redis_url = self._given
        if database_url and redis_url:
            self.database_url, self.redis_url = database_url, redis_url
            return
        account = accounts.for_servers(self.data_dir / "postgres")
        folders.admit(self.data_dir, account)
        sockets = folders.open_sockets(self.data_dir, account)
        started.callback(folders.close_sockets, self.data_dir)
        self.database_url = database_url or self._start_postgres(started, sockets, account)
        self.redis_url = redis_url or self._start_redis(started, sockets, account)

    def _start_postgres(self, started: ExitStack, sockets: Path, account: Account | None) -> str:
        server = postgres.Postgres(
            folder=self.data_dir / "postgres",
            sockets=sockets,
            programs=postgres.find_programs(folders.programs(self.data_dir), account),
            log=folders.logs(self.data_dir) / "postgres.log",
            account=account,
            durable=self._durable,
        )
        folders.own_folder(server.folder, account)
        ballast = disk.Ballast(server.folder, floor=self._floor)
        disk.look(ballast, self._report)
        try:
            self._run_postgres(started, server)
        except StartFailed as error:
            if not ballast.is_needed() and not any(words in str(error) for words in disk.NO_SPACE):
                raise
            if not ballast.release():
                raise StartFailed(f"the disk of {server.folder} is full: make room there. {error}") from error
            self._report("the disk is full: its reserve was released; starting Postgres again")
            self._run_postgres(started, server)
        if self._with_ballast:
            started.enter_context(disk.Keeper(ballast, report=self._report))
        return server.url()

    def _run_postgres(self, started: ExitStack, server: postgres.Postgres) -> None:
        with ExitStack() as attempt:
            server.prepare()
            self._keep(attempt, server.program(), server.ready, postgres.START_SECONDS)
            started.push(attempt.pop_all())

    def _start_redis(self, started: ExitStack, sockets: Path, account: Account | None) -> str:
        server = redis.Redis(
            executable=redis.find_executable(folders.programs(self.data_dir), account, source=self._redis_source),
            sockets=sockets,
            log=folders.logs(self.data_dir) / "redis.log",
            account=account,
        )
        self._keep(started, server.program(), server.ready, redis.START_SECONDS)
        return server.url

    def _keep(self, started: ExitStack, program: Program, ready: Callable[[], bool], timeout_seconds: float) -> None:
        kept = Kept(self._family, program, report=self._report)
        started.callback(kept.stop)
        kept.wait_ready(ready, timeout_seconds=timeout_seconds)
