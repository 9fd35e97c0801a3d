"""A backup by the commands of docs/operations.md, restored: all is there, and the job that ran goes on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine

from jobs import blobs, queries
from jobs.database import cluster_id, make_engine
from jobs.keys import authenticate, create
from jobs.lifecycle.reap import reap
from jobs.lifecycle.work import record_metrics
from jobs.metrics import store
from local import preparation
from local.postgres import INSTALL, PACKAGE
from tests.conftest import Servers
from tests.jobs.scenario import add_job, attempts, checkpoint, everything, expire, segment, start

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def commands(containing: str) -> str:
    """The block of the document that holds these words."""
    (block,) = [text for text in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if text.startswith(containing)]
    return str(block)


def programs(major: int) -> Path:
    """The folder with this version's pg_dump: the embedded server's is in its wheel, another server has its own."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent / INSTALL / "bin"
    if major >= 18:
        return wheel
    installed = shutil.which("pg_dump")
    assert installed is not None, f"install the client programs of PostgreSQL {major}"
    return Path(installed).parent


def run(script: str, url: str, folder: Path) -> None:
    with psycopg.connect(url) as connection:
        major = connection.info.server_version // 10_000
    known: dict[str, Any] = conninfo_to_dict(url)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    environment = {variable: str(known[name]) for name, variable in names.items() if known.get(name)}
    environment["PATH"] = f"{programs(major)}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-e", "-c", script], env=environment, cwd=folder, check=True, timeout=300)


@contextmanager
def restored(servers: Servers, url: str, folder: Path) -> Iterator[Engine]:
    """The database of the dump in `folder`, restored beside the original as the document says."""
    name = f"traind_test_{uuid.uuid4().hex}"
    try:
        run(commands("createdb").replace("traind_restored", name), url, folder)
        engine = make_engine(servers.database(name), application_name="tests")
        yield engine
        engine.dispose()
    finally:
        with psycopg.connect(servers.postgres, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.mark.slow
def test_a_restored_backup_has_everything_and_the_job_that_ran_goes_on(
    servers: Servers, database_url: str, engine: Engine, project_id: int, tmp_path: Path
) -> None:
    job_id = add_job(engine, project_id, name="kept", labels={"team": "a"})
    claimed = start(engine)
    with engine.begin() as conn:
        record_metrics(conn, claimed.lease, seq=1, segment=segment(1, 20), summary={})
        key = create(conn, project_id, name="colleague", scopes=["read"])
    saved = checkpoint(engine, claimed.lease, 10)
    before = everything(engine)

    run(commands("pg_dump"), database_url, tmp_path)
    add_job(engine, project_id, name="after the backup")

    with restored(servers, database_url, tmp_path) as copy:
        assert everything(copy) == before
        preparation.migrate(copy.url.render_as_string(hide_password=False))
        with copy.connect() as conn:
            known = authenticate(conn, key)
            (series,) = store.read(conn, job_id).values()
            found = queries.checkpoint(conn, project_id, saved.id)
        assert known is not None
        assert (known.name, found.step, len(series.steps)) == ("colleague", 10, 20)
        assert b"".join(blobs.read_range(copy, saved.state_blob_id)) == b"x" * 1_000_000 + b"y"

        with engine.connect() as original, copy.connect() as conn:
            assert cluster_id(conn) == cluster_id(original)
            run(commands("psql").replace("traind_restored", str(copy.url.database)), database_url, tmp_path)
            assert cluster_id(conn) != cluster_id(original)

        expire(copy, job_id)
        with copy.begin() as conn:
            reap(conn, cluster_id=cluster_id(conn), suspicion_seconds=60, lease_seconds=0.001)
        again = start(copy)
        assert (again.lease.job_id, again.from_step, again.lease.attempt) == (job_id, 10, 2)
        assert attempts(engine, job_id)[-1].number == 1, "the original knows nothing of it"
