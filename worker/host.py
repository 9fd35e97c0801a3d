"""What all attempts of one worker process share: who it is, its settings, its connections, its scratch folder."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import UUID, uuid4

from psycopg.errors import UndefinedColumn, UndefinedTable
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError

from jobs.database import WORKER_POOL_SIZE, cluster_id, make_engine
from jobs.doorbell import Doorbell
from jobs.lifecycle.lease import holder_name
from jobs.lifecycle.workers import register_worker, stop_worker
from jobs.settings import NO_HOME, Settings
from jobs.storage import Storage
from worker.condition import Condition
from worker.cores import usable_cores
from worker.data_files import DataFiles
from worker.memory import usable_memory
from worker.scratch import Scratch, own_folder

PACKAGES = ("traind", "torch", "numpy", "celery", "psycopg")
"""Whose versions are told to the list of workers, beside Python's."""


@dataclass(frozen=True)
class Host:
    """One worker process. `lease_engine` opens an autocommitting connection of its own each time."""

    name: str
    worker_id: UUID
    cluster_id: UUID
    settings: Settings
    engine: Engine
    lease_engine: Engine
    doorbell: Doorbell
    redis_url: str
    scratch: Scratch
    condition: Condition
    storage: Storage
    data: DataFiles
    memory_bytes: int | None
    """What a trainer may use; None on a GPU, where nothing says what a job needs."""

    @property
    def cores(self) -> int:
        """CPU cores that a trainer may use."""
        return usable_cores()


class CannotStart(Exception):
    """Something that a worker needs is not there; the message says what to do."""


@contextmanager
def open_host(settings: Settings, *, database_url: str, redis_url: str, name: str) -> Iterator[Host]:
    """Enter this process in the list of workers, until it stops. Raises CannotStart, or OperationalError (Postgres)."""
    worker_id, memory_bytes, data = uuid4(), _memory_bytes(settings), DataFiles(settings)
    with ExitStack() as stack:
        scratch = _scratch(stack, settings.scratch_dir, worker_id)
        try:
            engine = make_engine(
                database_url, application_name=f"traind-worker-{name}"[:63], pool_size=WORKER_POOL_SIZE
            )
            stack.callback(engine.dispose)
            lease_engine = make_engine(
                database_url,
                application_name=holder_name(worker_id),
                pool_size=0,
                silence_seconds=settings.lease_seconds,
            )
            with engine.begin() as conn:
                cluster = cluster_id(conn)
                register_worker(
                    conn,
                    worker_id=worker_id,
                    name=name,
                    device=settings.worker_device,
                    queues=settings.worker_queues,
                    versions=_versions(),
                    memory_bytes=memory_bytes,
                    lacks=data.lacks,
                )
        except ValueError as error:
            raise CannotStart(f"TRAIND_DATABASE_URL: {error}") from error
        except ProgrammingError as error:
            old = isinstance(error.orig, UndefinedTable | UndefinedColumn)
            remedy = "it is not migrated: run `traind db upgrade`" if old else "`traind doctor` may say why"
            raise CannotStart(f"the database refuses ({error.orig}); {remedy}") from error
        doorbell = Doorbell(redis_url, cluster)
        stack.callback(doorbell.close)
        autocommit = lease_engine.execution_options(isolation_level="AUTOCOMMIT")
        storage = Storage(engine, settings)
        condition = Condition(scratch, storage)
        yield Host(
            name,
            worker_id,
            cluster,
            settings,
            engine,
            autocommit,
            doorbell,
            redis_url,
            scratch,
            condition,
            storage,
            data,
            memory_bytes,
        )
        with engine.begin() as conn:
            stop_worker(conn, worker_id)


def _scratch(stack: ExitStack, scratch_dir: Path, worker_id: UUID) -> Scratch:
    if NO_HOME in scratch_dir.parents:
        raise CannotStart("this user has no home folder: set HOME, or TRAIND_SCRATCH_DIR and TRAIND_CACHE_DIR")
    try:
        return stack.enter_context(own_folder(scratch_dir, worker_id))
    except OSError as error:
        raise CannotStart(f"the scratch folder cannot be used: {error}; mend it, or set TRAIND_SCRATCH_DIR") from error


def _memory_bytes(settings: Settings) -> int | None:
    return None if settings.worker_device == "cuda" else settings.worker_memory_bytes or usable_memory()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
