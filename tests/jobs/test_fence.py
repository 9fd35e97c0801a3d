"""No function that takes a lease writes anything with a stale one. The functions are found, not listed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, select

import jobs
from jobs.errors import Fenced
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.reap import reap
from jobs.lifecycle.work import begin_checkpoint, finish, put_chunk
from jobs.states import State
from jobs.tables import checkpoint, meta
from tests.jobs.scenario import ERROR, add_job, everything, expire, segment, start

RENEWS_LATE = {"jobs.lifecycle.work.heartbeat"}
"""The protocol lets these revive a lease that ran out, if nobody took the attempt."""


def writers() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function of the package that takes a Connection and a Lease."""
    for module in pkgutil.walk_packages(jobs.__path__, "jobs."):
        for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            if function.__module__ == module.name and not name.startswith("_"):
                kinds = {p.annotation for p in inspect.signature(function, eval_str=True).parameters.values()}
                if {Connection, Lease} <= kinds:
                    yield f"{module.name}.{name}", function


WRITERS = dict(writers())


def arguments(function: Callable[..., Any], engine: Engine) -> dict[str, Any]:
    """For each parameter after the lease a value that is good while the lease is."""
    with engine.connect() as conn:
        begun = conn.execute(select(checkpoint)).one()
    known = {
        "backend_pid": 1,
        "lease_seconds": 60.0,
        "phase": "train",
        "step": 7,
        "summary": {"last": {"train/loss": 1.0}},
        "seq": 3,
        "segment": segment(5, 7),
        "fingerprint": {"torch": "0"},
        "kind": "interval",
        "model_size": 1,
        "state_size": 1,
        "blob_id": begun.model_blob_id,
        "data": b"a",
        "checkpoint_id": begun.id,
        "damage": "torn",
        "damaged": begun.id,
        "needed": None,
        "model_sha256": b"m" * 32,
        "state_sha256": b"s" * 32,
        "state": State.FAILED,
        "error": ERROR,
        "log": "log",
        "reason": "drain",
        "result": {"equal": True},
    }
    names = list(inspect.signature(function).parameters)[2:]
    missing = set(names) - known.keys()
    assert not missing, f"{function.__qualname__} is new here: add a value for {missing}"
    return {name: known[name] for name in names}


@pytest.fixture
def lease(engine: Engine, project_id: int) -> Lease:
    """Of a running attempt with a checkpoint whose chunks are all there."""
    add_job(engine, project_id, resources={"max_attempts": 10})
    lease = start(engine).lease
    with engine.begin() as conn:
        ref = begin_checkpoint(conn, lease, step=2, kind="interval", model_size=1, state_size=1, summary={})
        put_chunk(conn, lease, blob_id=ref.model_blob_id, seq=0, data=b"m")
        put_chunk(conn, lease, blob_id=ref.state_blob_id, seq=0, data=b"s")
    return lease


def wrong_token(engine: Engine, lease: Lease) -> Lease:
    return replace(lease, token=uuid4())


def wrong_job(engine: Engine, lease: Lease) -> Lease:
    return replace(lease, job_id=uuid4())


def expired(engine: Engine, lease: Lease) -> Lease:
    expire(engine, lease.job_id)
    return lease


def reaped(engine: Engine, lease: Lease) -> Lease:
    expire(engine, lease.job_id)
    with engine.begin() as conn:
        cluster = conn.execute(select(meta.c.cluster_id)).scalar_one()
        assert len(reap(conn, cluster_id=cluster, suspicion_seconds=1, lease_seconds=60)) == 1
    return lease


def taken_over(engine: Engine, lease: Lease) -> Lease:
    reaped(engine, lease)
    start(engine)
    return lease


def finished(engine: Engine, lease: Lease) -> Lease:
    with engine.begin() as conn:
        finish(conn, lease, state=State.SUCCEEDED, error=None, summary={}, log=None)
    return lease


STALE = [wrong_token, wrong_job, expired, reaped, taken_over, finished]


def test_the_writers_of_the_protocol_are_among_those_found() -> None:
    found = {name.rpartition(".")[2] for name in WRITERS}
    assert found >= {
        "hold",
        "heartbeat",
        "record_progress",
        "record_metrics",
        "record_fingerprint",
        "begin_checkpoint",
        "put_chunk",
        "complete_checkpoint",
        "finish",
        "crash",
        "requeue",
    }


def test_a_live_lease_may_write(engine: Engine, lease: Lease) -> None:
    for function in WRITERS.values():
        with engine.connect() as conn:
            function(conn, lease, **arguments(function, engine))


@pytest.mark.parametrize("make_stale", STALE, ids=lambda f: f.__name__)
def test_a_stale_lease_writes_nothing(
    make_stale: Callable[[Engine, Lease], Lease], engine: Engine, lease: Lease
) -> None:
    stale = make_stale(engine, lease)
    before = everything(engine)
    for name, function in WRITERS.items():
        if make_stale is expired and name in RENEWS_LATE:
            continue
        with pytest.raises(Fenced), engine.begin() as conn:
            function(conn, stale, **arguments(function, engine))
        assert everything(engine) == before, name


def test_nothing_is_left_to_a_caller_who_commits_all_the_same(engine: Engine, lease: Lease) -> None:
    """Fenced is enough: the function itself wrote nothing, should its caller swallow the error and commit."""
    stale = replace(lease, token=uuid4())
    before = everything(engine)
    for name, function in WRITERS.items():
        with engine.begin() as conn, pytest.raises(Fenced):
            function(conn, stale, **arguments(function, engine))
        assert everything(engine) == before, name


def test_a_lease_that_ends_inside_a_transaction_stops_its_writes(engine: Engine, lease: Lease) -> None:
    """The fence reads the clock, not the transaction's start."""
    hold = WRITERS["jobs.lifecycle.work.hold"]
    with engine.begin() as conn:
        conn.execute(select(1))
        expire(engine, lease.job_id)
        with pytest.raises(Fenced):
            hold(conn, lease, backend_pid=1)
