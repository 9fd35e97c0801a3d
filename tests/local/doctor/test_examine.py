"""All checks together, on servers that are well, ill, wrong or away; and `traind doctor` and `traind gc` themselves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import psycopg
import pytest
import typer
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from jobs import garbage
from jobs.blobs import insert_blob
from jobs.database import upgrade
from jobs.lifecycle.work import note_no_room
from jobs.settings import InvalidSettings
from jobs.tables import blob, blob_chunk
from local import care
from local.doctor import machine, target
from local.doctor.examine import examine
from local.doctor.findings import Finding, Level
from local.doctor.machine import Torch
from local.errors import DatabaseUnusable, DataDirError
from local.servers import Servers
from tests.jobs.scenario import add_job, add_worker, start
from tests.local.doctor.conftest import Examine
from tests.local.doctor.judged import bad
from tests.local.doctor.pooling import pooled
from tests.local.up import Up, traind
from tests.traind.commands import Here

CHECKS = {
    *("database", "pooler", "durability", "clock", "migrations", "privileges", "connections", "storage", "redis"),
    *("versions", "kernel", "gpu", "disk scratch", "workers", "jobs", "blobs"),
}
OF_THE_TABLES = {"privileges", "connections", "storage", "workers", "jobs", "blobs"}
OF_THE_DATABASE = OF_THE_TABLES | {"pooler", "durability", "clock", "migrations"}
PASSWORD = "horse/battery:staple"


def checks(findings: list[Finding]) -> set[str]:
    return {each.check for each in findings}


def errors(findings: list[Finding]) -> set[str]:
    """Checks with errors; the tests' own Postgres may be one that forgets."""
    return {check for check, level in bad(findings) if level is Level.ERROR} - {"durability"}


def with_password(url: str, password: str) -> str:
    return make_url(url).set(password=password).render_as_string(hide_password=False)


def test_all_is_looked_at_and_well(examined: Examine, engine: Engine) -> None:
    add_worker(engine)
    found = examined()
    assert checks(found) == CHECKS
    assert [each for each in bad(found) if each[0] != "durability"] == []


def test_no_room_for_checkpoints(examined: Examine, engine: Engine) -> None:
    """By the floor on the server's disk, which tells where it is, and by the quota."""
    (full,) = [each for each in examined(TRAIND_MIN_FREE_DISK_BYTES=str(2**60)) if each.check == "storage"]
    assert full.level is Level.ERROR
    assert "no checkpoint is taken in" in full.what
    assert full.fix is not None
    assert "traind rm" in full.fix
    assert "traind up --no-worker" in full.fix
    with engine.begin() as conn:
        insert_blob(conn, 1, 3_000_000)
    (quota,) = [
        each
        for each in examined(TRAIND_MAX_STORED_BYTES="1", TRAIND_MIN_FREE_DISK_BYTES="0")
        if each.check == "storage"
    ]
    assert "TRAIND_MAX_STORED_BYTES" in quota.what


def test_a_running_job_whose_checkpoint_finds_no_room(examined: Examine, engine: Engine, project_id: int) -> None:
    """There is room, but not for so large a checkpoint."""
    add_job(engine, project_id)
    lease = start(engine).lease
    with engine.begin() as conn:
        note_no_room(conn, lease, step=5, kind="interval", reason="the disk has 9 bytes free: make room")
    (found,) = [each for each in examined() if each.check == "storage"]
    assert found.level is Level.WARNING
    assert "the disk has 9 bytes free" in found.what
    assert found.fix == "make room"


def test_postgres_is_down_and_the_rest_is_still_looked_at(examined: Examine) -> None:
    found = examined(TRAIND_DATABASE_URL=f"postgresql://u:{quote(PASSWORD, safe='')}@127.0.0.1:1/none")
    assert errors(found) == {"database"}
    assert checks(found) == CHECKS - OF_THE_DATABASE
    assert not {word for word in re.split(r"\W", PASSWORD) if word in str(found)}


def test_redis_is_down_and_the_rest_is_still_looked_at(examined: Examine) -> None:
    found = examined(TRAIND_REDIS_URL="redis://:battery-staple@127.0.0.1:1/0")
    assert errors(found) == {"redis"}
    assert checks(found) == CHECKS
    assert "battery" not in str(found)


@pytest.mark.parametrize("url", ["mysql://u:battery@h/d", "postgresql://u:battery@h:x/d", "not a url"])
def test_a_url_of_nothing(examined: Examine, url: str) -> None:
    with pytest.raises(InvalidSettings, match="TRAIND_DATABASE_URL") as refused:
        examined(TRAIND_DATABASE_URL=url)
    assert "battery" not in str(refused.value)


def test_wrong_passwords(examined: Examine, servers_in: Callable[[], Servers]) -> None:
    with servers_in() as servers:
        wrong = with_password(servers.database_url, PASSWORD)
        socket = make_url(servers.database_url).query["host"]
        found = examined(TRAIND_DATABASE_URL=wrong, TRAIND_REDIS_URL=f"unix://u:battery@{socket}/redis.sock")
    assert errors(found) == {"database", "redis"}
    first, second = [each for each in found if each.check in ("database", "redis")]
    assert "password authentication failed" in first.what
    assert "TRAIND_DATABASE_URL" in (first.fix or "")
    assert "TRAIND_REDIS_URL" in (second.fix or "")
    assert "battery" not in str(found)


def test_an_external_server_that_was_never_migrated(examined: Examine, servers_in: Callable[[], Servers]) -> None:
    with servers_in() as servers:
        given = {"TRAIND_DATABASE_URL": servers.database_url, "TRAIND_REDIS_URL": servers.redis_url}
        found = examined(**given)
        assert errors(found) == {"migrations"}
        assert checks(found) == CHECKS - OF_THE_TABLES
        upgrade(servers.database_url)
        assert errors(examined(**given)) == set()


def test_a_schema_that_is_newer_than_this_code(examined: Examine, engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    found = examined()
    assert errors(found) == {"migrations"}
    assert checks(found) == CHECKS - OF_THE_TABLES


def test_a_table_that_is_gone_is_an_error_and_not_the_end(examined: Examine, engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("ALTER TABLE checkpoint RENAME TO lost"))
    found = examined()
    assert "privileges" in errors(found)
    assert "redis" in checks(found)


@pytest.mark.parametrize(("mode", "check"), [("transaction", "pooler"), ("refuses-options", "database")])
def test_pgbouncer_is_refused_by_name(examined: Examine, database_url: str, mode: str, check: str) -> None:
    with pooled(database_url, mode) as url:  # type: ignore[arg-type]
        found = examined(TRAIND_DATABASE_URL=url)
    assert errors(found) == {check}
    (refusal,) = [each for each in found if each.check == check and each.level is Level.ERROR]
    assert "PgBouncer" in refusal.what
    assert "PostgreSQL itself" in str(refusal.fix)


def test_a_clock_that_is_wrong_by_an_hour(examined: Examine, tmp_path: Path) -> None:
    examined()
    found = examine(target.find(tmp_path), now=lambda: time.time() - 3_600)
    assert errors(found) == {"clock"}


def test_a_gpu_that_is_wanted_and_not_there(examined: Examine, probed: object) -> None:
    found = examined(TRAIND_WORKER_DEVICE="cuda")
    there = any(each.check == "gpu" and each.what[0].isdigit() for each in found)
    assert errors(found) == (set() if there else {"gpu"})


def orphan(engine: Engine, project_id: int) -> int:
    with engine.begin() as conn:
        blob_id = insert_blob(conn, project_id, 2_000_000)
        conn.execute(update(blob).values(created_at=func.clock_timestamp() - timedelta(hours=1)))
        conn.execute(insert(blob_chunk), [{"blob_id": blob_id, "seq": seq, "data": b"x" * 10**6} for seq in (0, 1)])
    return blob_id


def test_orphans_are_found_and_gc_removes_them(
    engine: Engine, project_id: int, database_url: str, redis_url: str, here: Here, examined: Examine
) -> None:
    environment = {"TRAIND_DATABASE_URL": database_url, "TRAIND_REDIS_URL": redis_url}
    orphan(engine, project_id)

    def gc(*arguments: str) -> str:
        done = here("gc", *arguments, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def left() -> int:
        with engine.connect() as conn:
            return conn.execute(select(func.count()).select_from(blob_chunk)).scalar_one()

    (found,) = [each for each in examined() if each.check == "blobs"]
    assert "1 that no checkpoint names (2.0 MB)" in found.what
    assert gc("--dry-run") == "1 blobs, 2.0 MB would be removed\n"
    assert left() == 2
    assert json.loads(gc("-o", "json")) == {"n_blobs": 1, "n_bytes": 2_000_000, "dry_run": False}
    assert left() == 0
    assert gc() == "0 blobs, 0 bytes removed\n"


@pytest.mark.parametrize(
    ("changes", "says", "code"),
    [
        ({"TRAIND_DATABASE_URL": "postgresql://u:battery@127.0.0.1:1/none"}, "refused", 1),
        ({"TRAIND_DATABASE_URL": "mysql://u:battery@127.0.0.1/none"}, "postgresql://", 2),
        ({"TRAIND_DATA_DIR": "/nowhere"}, "TRAIND_DATABASE_URL", 1),
        ({"TRAIND_LEASE_SECONDS": "soon"}, "TRAIND_LEASE_SECONDS", 2),
    ],
)
def test_gc_without_a_database_says_so(
    here: Here, embedded: None, changes: dict[str, str], says: str, code: int
) -> None:
    done = here("gc", env=changes)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "battery" not in done.stderr


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("TRAIND_")]:
        monkeypatch.delenv(name)


def exit_code_and_findings(done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, str]]:
    """The worst level of each check."""
    assert "Traceback" not in done.stderr
    worst: dict[str, str] = {}
    for each in json.loads(done.stdout):
        assert each.keys() == {"check", "level", "what", "fix"}
        worst[each["check"]] = max(
            worst.get(each["check"], ""), each["level"], key=["", "ok", "warning", "error"].index
        )
    return done.returncode, worst


def test_without_a_service_the_machine_is_looked_at(data_dir: Path) -> None:
    code, found = exit_code_and_findings(traind("doctor", "-o", "json", "--data-dir", str(data_dir / "none")))
    assert (code, found["service"]) == (1, "error")
    assert "database" not in found
    assert {"versions", "kernel", "disk scratch"} <= found.keys()
    assert not (data_dir / "none").exists()


def test_a_machine_for_the_api_alone_needs_no_torch(examined: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "probe", lambda: Torch(problem=machine.NO_TORCH))
    assert ("kernel", Level.WARNING) in bad(examined())
    assert "kernel" in errors(examined(TRAIND_WORKER_DEVICE="cuda"))


def test_the_folder_of_another_user_is_a_finding(
    closed: Path, capsys: pytest.CaptureFixture[str], embedded: None
) -> None:
    with pytest.raises(typer.Exit):
        care.doctor(closed, "json")
    (finding,) = json.loads(capsys.readouterr().out)
    assert (finding["check"], finding["level"]) == ("service", "error")
    assert "another user's" in finding["what"]


def test_a_scratch_folder_that_cannot_be_looked_at_hides_nothing(
    closed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], embedded: None, probed: Torch
) -> None:
    monkeypatch.setenv("TRAIND_SCRATCH_DIR", str(closed / "scratch"))
    monkeypatch.setattr(machine, "probe", lambda: probed)
    with pytest.raises(typer.Exit):
        care.doctor(Path("/nowhere"), "json")
    found = {each["check"]: each["level"] for each in json.loads(capsys.readouterr().out)}
    assert found["disk scratch"] == "error"
    assert {"service", "versions", "kernel", "gpu"} <= found.keys()


def test_gc_says_that_the_folder_is_another_users(closed: Path, embedded: None) -> None:
    with pytest.raises(DataDirError, match="another user's; run this as the user that runs `traind up`"):
        care.gc(closed)


def test_gc_tells_of_an_error_without_words(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    def fail(_: Engine, **__: object) -> NoReturn:
        raise OperationalError("SELECT 1", {}, psycopg.OperationalError(""))

    monkeypatch.setenv("TRAIND_DATABASE_URL", database_url)
    monkeypatch.setenv("TRAIND_REDIS_URL", redis_url)
    monkeypatch.setattr(garbage, "collect", fail)
    with pytest.raises(DatabaseUnusable, match="OperationalError"):
        care.gc(tmp_path / "nothing")


def test_unusable_settings_are_a_finding(data_dir: Path) -> None:
    done = traind("doctor", "--data-dir", str(data_dir), TRAIND_LEASE_SECONDS="soon")
    assert done.returncode == 1
    assert "TRAIND_LEASE_SECONDS" in done.stdout


@pytest.mark.parametrize("arguments", [["-o", "xml"], ["--nonsense"], ["everything"]])
def test_bad_usage_is_exit_code_2(here: Here, arguments: list[str]) -> None:
    done = here("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_embedded_service_up_ill_and_down(data_dir: Path) -> None:
    secrets: list[str] = []

    def doctor() -> tuple[int, dict[str, str]]:
        done = traind("doctor", "-o", "json", "--data-dir", str(data_dir))
        assert not [secret for secret in secrets if secret in done.stdout + done.stderr]
        return exit_code_and_findings(done)

    with closing(Up(data_dir)) as up:
        up.wait_for("Ctrl-C stops it")
        while "live" not in traind("workers", "--data-dir", str(data_dir)).stdout:
            time.sleep(0.2)
        secrets += [up.key(), (data_dir / "postgres" / "password").read_text().strip()]
        code, found = doctor()
        assert (code, {check: level for check, level in found.items() if level != "ok"}) == (0, {})
        assert found.keys() == CHECKS | {"service", "disk data", "disk postgres", "reserve"}

        stopped = up.program("redis")
        stopped.send_signal(signal.SIGSTOP)
        code, found = doctor()
        stopped.send_signal(signal.SIGCONT)
        assert (code, found["redis"], found["database"]) == (1, "error", "ok")

        assert traind("down", "--data-dir", str(data_dir)).returncode == 0
    code, found = doctor()
    assert (code, found["service"], found["disk postgres"]) == (1, "error", "ok")
