"""The tables, as SQLAlchemy Core. The migrations create the same; a test compares the two catalogues.

Ids of jobs and workers are UUIDs made by the application; the rest are identities. Times are `timestamptz`
on the database's clock. No contrib extension, nothing newer than PostgreSQL 15.
"""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from jobs.states import FINAL, Kind, Outcome, Request, State

BLOBS_PER_PARTITION = 256
CHUNK_BYTES = 1_000_000

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _one_of(column: str, values: list[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(v)) for v in sorted(values))})"


def _now(name: str = "created_at") -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


def _json(name: str, *, nullable: bool = False) -> Column[object]:
    """None is stored as SQL's NULL, never as the JSON value null."""
    kind = JSONB(none_as_null=True)
    return Column(name, kind, nullable=nullable, server_default=None if nullable else text("'{}'::jsonb"))


meta = Table(
    "meta",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("cluster_id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    _now(),
    CheckConstraint("id = 1", name="one_row"),
    comment="One row: which installation this is. The id goes into lock keys, NOTIFY channels and Redis keys.",
)

project = Table(
    "project",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    _now(),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("project_id", ForeignKey("project.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    _now(),
    _time("revoked_at"),
    CheckConstraint("scopes <@ ARRAY['read', 'write', 'admin'] AND cardinality(scopes) > 0", name="scopes"),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    comment="Keys are kept as SHA-256 only.",
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("slots", Integer, nullable=False, server_default=text("1")),
    _json("versions"),
    _now("started_at"),
    _now("last_seen_at"),
    _time("stopped_at"),
    Column("trouble", Text),
    Column("memory_bytes", BigInteger),
    _json("lacks"),
    CheckConstraint("device IN ('cpu', 'cuda')", name="device"),
)

dataset = Table(
    "dataset",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    _json("parameters"),
    Column("n_train", BigInteger, nullable=False),
    Column("n_validation", BigInteger, nullable=False),
    _now(),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    comment="Every dataset that a job used, by the hash of its identity.",
)

job = Table(
    "job",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("idempotency_key", Text),
    Column("request_sha256", LargeBinary),
    Column("name", Text),
    _json("labels"),
    Column("optimizer", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("resolved", JSON, nullable=False),
    Column("dataset_sha256", ForeignKey("dataset.sha256"), nullable=False),
    Column("state", Text, nullable=False),
    Column("requested", Text, nullable=False, server_default=text("'none'")),
    Column("queue", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("not_before", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    Column("crash_count", Integer, nullable=False, server_default=text("0")),
    Column("max_attempts", Integer, nullable=False),
    Column("lease_token", Uuid),
    _time("lease_until"),
    Column("worker_id", ForeignKey("worker.id")),
    Column("backend_pid", Integer),
    _time("lockless_since"),
    Column("phase", Text),
    Column("observed_step", BigInteger, nullable=False, server_default=text("0")),
    Column("saved_step", BigInteger),
    Column("total_steps", BigInteger, nullable=False),
    _json("summary"),
    _json("error", nullable=True),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    _now(),
    _time("started_at"),
    _time("finished_at"),
    _now("updated_at"),
    Column("restart", Boolean, nullable=False, server_default=text("false")),
    Column("kind", Text, nullable=False, server_default=text("'train'")),
    Column("resume_differences", JSONB, nullable=False, server_default=text("'[]'")),
    Column("memory_bytes", BigInteger),
    _json("created_by", nullable=True),
    Column("dataset", Text),
    UniqueConstraint("project_id", "idempotency_key"),
    CheckConstraint(_one_of("kind", list(Kind)), name="kind"),
    CheckConstraint(_one_of("state", list(State)), name="state"),
    CheckConstraint(_one_of("requested", list(Request)), name="requested"),
    CheckConstraint(f"({_one_of('state', list(FINAL))}) = (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint(
        "(state = 'running') = (lease_until IS NOT NULL) AND (state = 'running') = (lease_token IS NOT NULL)",
        name="lease",
    ),
    CheckConstraint("state = 'running' OR requested = 'none'", name="requested_while_running"),
    CheckConstraint(
        "state = 'running' OR (worker_id IS NULL AND backend_pid IS NULL AND lockless_since IS NULL AND phase IS NULL)",
        name="held_while_running",
    ),
    CheckConstraint("state <> 'running' OR NOT restart", name="restart_while_waiting"),
    CheckConstraint("(idempotency_key IS NULL) = (request_sha256 IS NULL)", name="idempotency"),
    CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_has_error"),
    CheckConstraint("device IN ('auto', 'cpu', 'cuda')", name="device"),
    CheckConstraint("attempt >= 0 AND crash_count >= 0 AND max_attempts >= 1", name="attempts"),
    Index("ix_job_project_id_created_at_id", "project_id", "created_at", "id"),
    Index(
        "ix_job_due",
        "queue",
        text("(crash_count > 0) DESC"),
        text("priority DESC"),
        "created_at",
        "id",
        postgresql_where=text("state = 'queued'"),
    ),
    Index("ix_job_running", "id", postgresql_where=text("state = 'running'")),
    Index("ix_job_worker_id", "worker_id", postgresql_where=text("worker_id IS NOT NULL")),
    Index("ix_job_id_reversed", text("reverse(replace(id::text, '-', '')) text_pattern_ops")),
    Index("ix_job_labels", "labels", postgresql_using="gin"),
    postgresql_with={"fillfactor": 70},  # room for HOT updates: heartbeats and progress touch no indexed column
    comment="The truth about a job. Progress and summary are columns here, so lists never read raw points.",
)

attempt = Table(
    "attempt",
    metadata,
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE")),
    Column("number", Integer),
    Column("lease_token", Uuid, nullable=False, unique=True),
    Column("worker_id", ForeignKey("worker.id"), nullable=False),
    Column("from_step", BigInteger, nullable=False),
    Column("from_checkpoint_id", BigInteger),
    _json("fingerprint", nullable=True),
    Column("outcome", Text),
    _json("error", nullable=True),
    Column("log", Text),
    _now("started_at"),
    _time("ended_at"),
    PrimaryKeyConstraint("job_id", "number"),
    CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended"),
    CheckConstraint(_one_of("outcome", list(Outcome)), name="outcome"),
    Index("ix_attempt_worker_id", "worker_id"),
    comment="One execution of a job. `log` is the end of what its trainer printed.",
)

job_event = Table(
    "event",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("attempt", Integer, nullable=False),
    _json("data"),
    _now(),
    Index("ix_event_job_id_id", "job_id", "id"),
    comment="Append-only: every transition, and what else is worth knowing about a job.",
)

metric_key = Table(
    "metric_key",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

metric_segment = Table(
    "metric_segment",
    metadata,
    Column("job_id", Uuid),
    Column("attempt", Integer),
    Column("seq", Integer),
    Column("step0", BigInteger, nullable=False),
    Column("step1", BigInteger, nullable=False),
    Column("keys", ARRAY(Integer), nullable=False),
    Column("data", LargeBinary, nullable=False),
    _now(),
    PrimaryKeyConstraint("job_id", "attempt", "seq"),
    ForeignKeyConstraint(["job_id", "attempt"], ["attempt.job_id", "attempt.number"], ondelete="CASCADE"),
    CheckConstraint("step0 <= step1", name="steps"),
    comment="One immutable row per flush, all its keys; steps are step0 to step1, both included.",
)

metric_block = Table(
    "metric_block",
    metadata,
    Column("job_id", Uuid),
    Column("attempt", Integer),
    Column("key_id", ForeignKey("metric_key.id")),
    Column("block", BigInteger),
    Column("step0", BigInteger, nullable=False),
    Column("step1", BigInteger, nullable=False),
    Column("first", Double),
    Column("last", Double),
    Column("min", Double),
    Column("max", Double),
    Column("mean", Double),
    Column("count", Integer, nullable=False),
    Column("nan_count", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("job_id", "attempt", "key_id", "block"),
    ForeignKeyConstraint(["job_id", "attempt"], ["attempt.job_id", "attempt.number"], ondelete="CASCADE"),
    comment="Segments of one attempt compacted: the points of 4,096 steps of one key, with their aggregates.",
)

blob = Table(
    "blob",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False, index=True),
    Column("sha256", LargeBinary),
    Column("size", BigInteger, nullable=False),
    Column("n_chunks", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'uploading'")),
    _now(),
    _time("completed_at"),
    CheckConstraint("state IN ('uploading', 'complete', 'deleting')", name="state"),
    CheckConstraint("state <> 'complete' OR (sha256 IS NOT NULL AND completed_at IS NOT NULL)", name="complete"),
)

blob_chunk = Table(
    "blob_chunk",
    metadata,
    Column("blob_id", BigInteger),
    Column("seq", Integer),
    Column("data", LargeBinary, nullable=False),
    PrimaryKeyConstraint("blob_id", "seq"),
    postgresql_partition_by="RANGE (blob_id)",
    comment="Chunks of 1,000,000 bytes, the last one shorter. No foreign key: a partition is dropped whole.",
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("job_id", Uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("model_blob_id", ForeignKey("blob.id"), nullable=False, index=True),
    Column("state_blob_id", ForeignKey("blob.id"), nullable=False, index=True),
    _json("summary"),
    Column("complete", Boolean, nullable=False, server_default=text("false")),
    Column("pinned", Boolean, nullable=False, server_default=text("false")),
    _now(),
    _time("completed_at"),
    Column("damage", Text),
    UniqueConstraint("job_id", "attempt", "step"),
    ForeignKeyConstraint(["job_id", "attempt"], ["attempt.job_id", "attempt.number"], ondelete="CASCADE"),
    CheckConstraint("kind IN ('interval', 'final', 'pause', 'drain')", name="kind"),
    CheckConstraint("complete = (completed_at IS NOT NULL)", name="complete"),
    Index("ix_checkpoint_unfinished", "job_id", "attempt", postgresql_where=text("NOT complete")),
    comment="Two blobs, the model's weights and the rest of the training state; readable when complete. `damage` says "
    "why no attempt starts from it any more.",
)

check_run = Table(
    "check_run",
    metadata,
    Column("id", ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("subject_job_id", ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("checkpoint_id", BigInteger),
    Column("from_checkpoint_id", BigInteger),
    Column("from_step", BigInteger, nullable=False),
    Column("to_step", BigInteger, nullable=False),
    _json("result", nullable=True),
    CheckConstraint("0 <= from_step AND from_step < to_step", name="steps"),
    CheckConstraint("from_checkpoint_id IS NOT NULL OR from_step = 0", name="start"),
    Index("ix_check_run_subject_job_id_id", "subject_job_id", "id"),
    comment="What a job of kind verify or audit replays, and its result. No foreign keys to checkpoints: they may be "
    "deleted.",
)


def partition_ddl(number: int) -> str:
    """DDL of the partition for blobs number x 256 to (number + 1) x 256 - 1; STORAGE EXTERNAL keeps pglz away."""
    low, high = number * BLOBS_PER_PARTITION, (number + 1) * BLOBS_PER_PARTITION
    name = f"blob_chunk_{number:08d}"
    return f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF blob_chunk FOR VALUES FROM ({low}) TO ({high})"


for _statement in ("ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL", partition_ddl(0), partition_ddl(1)):
    event.listen(blob_chunk, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
