"""A project of its own for a test: keys, submits over HTTP, and a worker's writes by the lifecycle itself."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from sqlalchemy import Engine, insert

from jobs import keys, tables
from jobs.lifecycle.checkpoints import CheckpointRef
from jobs.lifecycle.lease import Lease
from jobs.lifecycle.work import begin_checkpoint, complete_checkpoint, put_chunk
from jobs.tables import CHUNK_BYTES
from tests.jobs.scenario import start

SPEC: dict[str, Any] = {"dataset": {"name": "digits"}, "model": {"name": "mlp"}, "optimizer": {"name": "adam"}}


@dataclass(frozen=True)
class Project:
    id: int
    engine: Engine
    http: httpx2.Client
    queue: str

    def key(self, *scopes: str) -> str:
        with self.engine.begin() as conn:
            return keys.create(conn, self.id, name="test", scopes=scopes)

    def spec(self, **parts: Any) -> dict[str, Any]:
        """A small spec on this project's own queue."""
        return SPEC | {"resources": {"queue": self.queue}} | parts

    def submit(self, **parts: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json=self.spec(**parts))
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def start(self) -> Lease:
        """A worker claims this project's best due job."""
        return start(self.engine, queues=[self.queue]).lease

    def begin_checkpoint(self, lease: Lease, *, step: int, model: bytes, state: bytes) -> CheckpointRef:
        with self.engine.begin() as conn:
            return begin_checkpoint(
                conn,
                lease,
                step=step,
                kind="interval",
                model_size=len(model),
                state_size=len(state),
                summary={
                    "last": {"val/loss": float("nan"), "val/accuracy": 0.5},
                    "best": {"val/accuracy": {"value": 0.5, "step": 10}},
                },
            )

    def checkpoint(self, lease: Lease, *, step: int, model: bytes = b"weights", state: bytes = b"rest") -> int:
        """A complete checkpoint; its id."""
        ref = self.begin_checkpoint(lease, step=step, model=model, state=state)
        for blob_id, content in ((ref.model_blob_id, model), (ref.state_blob_id, state)):
            for seq, at in enumerate(range(0, len(content), CHUNK_BYTES)):
                with self.engine.begin() as conn:
                    put_chunk(conn, lease, blob_id=blob_id, seq=seq, data=content[at : at + CHUNK_BYTES])
        with self.engine.begin() as conn:
            complete_checkpoint(
                conn, lease, checkpoint_id=ref.id, model_sha256=sha256(model), state_sha256=sha256(state)
            )
        return ref.id


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@contextmanager
def new_project(engine: Engine, url: str, *, scopes: Collection[str] = ("read", "write")) -> Iterator[Project]:
    name = f"p-{uuid.uuid4().hex}"
    with engine.begin() as conn:
        project_id = conn.execute(insert(tables.project).values(name=name).returning(tables.project.c.id)).scalar_one()
        key = keys.create(conn, project_id, name="test", scopes=scopes)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=url, headers=headers, trust_env=False, verify=False, timeout=60) as http:
        yield Project(project_id, engine, http, name)
