"""The verbs, each in a transaction of its own, as the api calls them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, select

from jobs.lifecycle.cancel import request_cancel
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.pause import request_pause, resume
from jobs.lifecycle.reap import Reaped, reap
from jobs.lifecycle.retry import retry
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, crash, finish, put_chunk, requeue
from jobs.states import ShownState, State
from jobs.tables import meta
from tests.jobs.scenario import ERROR

Verb = Callable[..., ShownState]
VERBS: dict[str, Verb] = {
    "cancel": request_cancel,
    "pause": request_pause,
    "resume": resume,
    "retry": retry,
    "retry from start": partial(retry, start="start"),
}
ENDS: dict[str, Callable[[Connection, Lease], State]] = {
    "succeed": partial(finish, state=State.SUCCEEDED, error=None, summary={}, log=None),
    "fail": partial(finish, state=State.FAILED, error=ERROR, summary={}, log=None),
    "crash": partial(crash, error=ERROR, log=None),
    "give up": partial(requeue, reason="drained", log=None),
}
"""How the holder of a lease may end its attempt."""


def ask(engine: Engine, project_id: int, job_id: UUID, verb: str) -> ShownState:
    with engine.begin() as conn:
        return VERBS[verb](conn, project_id=project_id, job_id=job_id)


def end(engine: Engine, lease: Lease, how: str) -> State:
    with engine.begin() as conn:
        return ENDS[how](conn, lease)


def save(engine: Engine, lease: Lease, step: int, *, kind: str = "interval", **summary: Any) -> CheckpointRef:
    """A complete checkpoint as small as can be, in one transaction."""
    with engine.begin() as conn:
        ref = begin_checkpoint(conn, lease, step=step, kind=kind, model_size=1, state_size=1, summary=summary)
        for blob_id in (ref.model_blob_id, ref.state_blob_id):
            put_chunk(conn, lease, blob_id=blob_id, seq=0, data=b"x")
        complete_checkpoint(conn, lease, checkpoint_id=ref.id, model_sha256=b"m" * 32, state_sha256=b"s" * 32)
    return ref


def reap_now(engine: Engine) -> list[Reaped]:
    """One round that takes expired leases, and nothing on suspicion."""
    with engine.begin() as conn:
        cluster = conn.execute(select(meta.c.cluster_id)).scalar_one()
        return reap(conn, cluster_id=cluster, suspicion_seconds=3_600, lease_seconds=60)
