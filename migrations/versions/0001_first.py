"""The first schema: jobs and their attempts, events, metrics, blobs, checkpoints; the meta row and a project."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = (
    """
CREATE TABLE meta (
    id smallint DEFAULT 1 NOT NULL,
    cluster_id uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_meta PRIMARY KEY (id),
    CONSTRAINT ck_meta_one_row CHECK (id = 1)
);
COMMENT ON TABLE meta IS
    'One row: which installation this is. The id goes into lock keys, NOTIFY channels and Redis keys.';
    """,
    """
CREATE TABLE project (
    id bigint GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_project PRIMARY KEY (id),
    CONSTRAINT uq_project_name UNIQUE (name)
);
    """,
    """
CREATE TABLE worker (
    id uuid NOT NULL,
    name text NOT NULL,
    device text NOT NULL,
    queues text[] NOT NULL,
    slots integer DEFAULT 1 NOT NULL,
    versions jsonb DEFAULT '{}'::jsonb NOT NULL,
    started_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    last_seen_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    stopped_at timestamptz,
    CONSTRAINT pk_worker PRIMARY KEY (id),
    CONSTRAINT ck_worker_device CHECK (device IN ('cpu', 'cuda'))
);
    """,
    """
CREATE TABLE dataset (
    sha256 bytea NOT NULL,
    name text NOT NULL,
    parameters jsonb DEFAULT '{}'::jsonb NOT NULL,
    n_train bigint NOT NULL,
    n_validation bigint NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_dataset PRIMARY KEY (sha256),
    CONSTRAINT ck_dataset_sha256 CHECK (octet_length(sha256) = 32)
);
COMMENT ON TABLE dataset IS 'Every dataset that a job used, by the hash of its identity.';
    """,
    """
CREATE TABLE metric_key (
    id integer GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL,
    CONSTRAINT pk_metric_key PRIMARY KEY (id),
    CONSTRAINT uq_metric_key_name UNIQUE (name)
);
    """,
    """
CREATE TABLE blob_chunk (
    blob_id bigint NOT NULL,
    seq integer NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT pk_blob_chunk PRIMARY KEY (blob_id, seq)
) PARTITION BY RANGE (blob_id);
COMMENT ON TABLE blob_chunk IS
    'Chunks of 1,000,000 bytes, the last one shorter. No foreign key: a partition is dropped whole.';
ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE TABLE blob_chunk_00000000 PARTITION OF blob_chunk FOR VALUES FROM (0) TO (256);
CREATE TABLE blob_chunk_00000001 PARTITION OF blob_chunk FOR VALUES FROM (256) TO (512);
    """,
    """
CREATE TABLE api_key (
    id bigint GENERATED ALWAYS AS IDENTITY,
    project_id bigint NOT NULL,
    name text NOT NULL,
    sha256 bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT pk_api_key PRIMARY KEY (id),
    CONSTRAINT ck_api_key_scopes CHECK (scopes <@ ARRAY['read', 'write', 'admin'] AND cardinality(scopes) > 0),
    CONSTRAINT ck_api_key_sha256 CHECK (octet_length(sha256) = 32),
    CONSTRAINT fk_api_key_project_id FOREIGN KEY (project_id) REFERENCES project (id) ON DELETE CASCADE,
    CONSTRAINT uq_api_key_sha256 UNIQUE (sha256)
);
CREATE INDEX ix_api_key_project_id ON api_key (project_id);
COMMENT ON TABLE api_key IS 'Keys are kept as SHA-256 only.';
    """,
    """
CREATE TABLE job (
    id uuid NOT NULL,
    project_id bigint NOT NULL,
    idempotency_key text,
    request_sha256 bytea,
    name text,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    optimizer text NOT NULL,
    spec json NOT NULL,
    resolved json NOT NULL,
    dataset_sha256 bytea NOT NULL,
    state text NOT NULL,
    requested text DEFAULT 'none' NOT NULL,
    queue text NOT NULL,
    device text NOT NULL,
    priority integer NOT NULL,
    not_before timestamptz DEFAULT clock_timestamp() NOT NULL,
    attempt integer DEFAULT 0 NOT NULL,
    crash_count integer DEFAULT 0 NOT NULL,
    max_attempts integer NOT NULL,
    lease_token uuid,
    lease_until timestamptz,
    worker_id uuid,
    backend_pid integer,
    lockless_since timestamptz,
    phase text,
    observed_step bigint DEFAULT 0 NOT NULL,
    saved_step bigint,
    total_steps bigint NOT NULL,
    summary jsonb DEFAULT '{}'::jsonb NOT NULL,
    error jsonb,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    updated_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_job PRIMARY KEY (id),
    CONSTRAINT uq_job_project_id_idempotency_key UNIQUE (project_id, idempotency_key),
    CONSTRAINT ck_job_state
        CHECK (state IN ('cancelled', 'diverged', 'failed', 'paused', 'queued', 'running', 'succeeded')),
    CONSTRAINT ck_job_requested CHECK (requested IN ('cancel', 'none', 'pause')),
    CONSTRAINT ck_job_finished
        CHECK ((state IN ('cancelled', 'diverged', 'failed', 'succeeded')) = (finished_at IS NOT NULL)),
    CONSTRAINT ck_job_lease
        CHECK ((state = 'running') = (lease_until IS NOT NULL) AND (state = 'running') = (lease_token IS NOT NULL)),
    CONSTRAINT ck_job_requested_while_running CHECK (state = 'running' OR requested = 'none'),
    CONSTRAINT ck_job_held_while_running
        CHECK (state = 'running' OR
            (worker_id IS NULL AND backend_pid IS NULL AND lockless_since IS NULL AND phase IS NULL)),
    CONSTRAINT ck_job_idempotency CHECK ((idempotency_key IS NULL) = (request_sha256 IS NULL)),
    CONSTRAINT ck_job_failed_has_error CHECK (state <> 'failed' OR error IS NOT NULL),
    CONSTRAINT ck_job_device CHECK (device IN ('auto', 'cpu', 'cuda')),
    CONSTRAINT ck_job_attempts CHECK (attempt >= 0 AND crash_count >= 0 AND max_attempts >= 1),
    CONSTRAINT fk_job_project_id FOREIGN KEY (project_id) REFERENCES project (id),
    CONSTRAINT fk_job_dataset_sha256 FOREIGN KEY (dataset_sha256) REFERENCES dataset (sha256),
    CONSTRAINT fk_job_worker_id FOREIGN KEY (worker_id) REFERENCES worker (id)
) WITH (fillfactor = 70);
CREATE INDEX ix_job_labels ON job USING gin (labels);
CREATE INDEX ix_job_project_id_created_at_id ON job (project_id, created_at, id);
CREATE INDEX ix_job_due ON job (queue, (crash_count > 0) DESC, priority DESC, created_at, id) WHERE state = 'queued';
CREATE INDEX ix_job_running ON job (id) WHERE state = 'running';
COMMENT ON TABLE job IS
    'The truth about a job. Progress and summary are columns here, so lists never read raw points.';
    """,
    """
CREATE TABLE blob (
    id bigint GENERATED ALWAYS AS IDENTITY,
    project_id bigint NOT NULL,
    sha256 bytea,
    size bigint NOT NULL,
    n_chunks integer NOT NULL,
    state text DEFAULT 'uploading' NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    completed_at timestamptz,
    CONSTRAINT pk_blob PRIMARY KEY (id),
    CONSTRAINT ck_blob_state CHECK (state IN ('uploading', 'complete', 'deleting')),
    CONSTRAINT ck_blob_complete CHECK (state <> 'complete' OR (sha256 IS NOT NULL AND completed_at IS NOT NULL)),
    CONSTRAINT fk_blob_project_id FOREIGN KEY (project_id) REFERENCES project (id)
);
CREATE INDEX ix_blob_project_id ON blob (project_id);
    """,
    """
CREATE TABLE attempt (
    job_id uuid NOT NULL,
    number integer NOT NULL,
    lease_token uuid NOT NULL,
    worker_id uuid NOT NULL,
    from_step bigint NOT NULL,
    from_checkpoint_id bigint,
    fingerprint jsonb,
    outcome text,
    error jsonb,
    log text,
    started_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamptz,
    CONSTRAINT pk_attempt PRIMARY KEY (job_id, number),
    CONSTRAINT ck_attempt_ended CHECK ((outcome IS NULL) = (ended_at IS NULL)),
    CONSTRAINT ck_attempt_outcome
        CHECK (outcome IN ('cancelled', 'crashed', 'diverged', 'drained', 'failed', 'lost', 'paused', 'succeeded')),
    CONSTRAINT fk_attempt_job_id FOREIGN KEY (job_id) REFERENCES job (id) ON DELETE CASCADE,
    CONSTRAINT uq_attempt_lease_token UNIQUE (lease_token),
    CONSTRAINT fk_attempt_worker_id FOREIGN KEY (worker_id) REFERENCES worker (id)
);
COMMENT ON TABLE attempt IS 'One execution of a job. `log` is the end of what its trainer printed.';
    """,
    """
CREATE TABLE event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    kind text NOT NULL,
    from_state text,
    to_state text,
    attempt integer NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_event PRIMARY KEY (id),
    CONSTRAINT fk_event_job_id FOREIGN KEY (job_id) REFERENCES job (id) ON DELETE CASCADE
);
CREATE INDEX ix_event_job_id_id ON event (job_id, id);
COMMENT ON TABLE event IS 'Append-only: every transition, and what else is worth knowing about a job.';
    """,
    """
CREATE TABLE metric_segment (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    seq integer NOT NULL,
    step0 bigint NOT NULL,
    step1 bigint NOT NULL,
    keys integer[] NOT NULL,
    data bytea NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_metric_segment PRIMARY KEY (job_id, attempt, seq),
    CONSTRAINT fk_metric_segment_job_id_attempt
        FOREIGN KEY (job_id, attempt) REFERENCES attempt (job_id, number) ON DELETE CASCADE,
    CONSTRAINT ck_metric_segment_steps CHECK (step0 <= step1)
);
COMMENT ON TABLE metric_segment IS
    'One immutable row per flush, all its keys; steps are step0 to step1, both included.';
    """,
    """
CREATE TABLE metric_block (
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    key_id integer NOT NULL,
    block bigint NOT NULL,
    step0 bigint NOT NULL,
    step1 bigint NOT NULL,
    first double precision,
    last double precision,
    min double precision,
    max double precision,
    mean double precision,
    count integer NOT NULL,
    nan_count integer NOT NULL,
    data bytea NOT NULL,
    CONSTRAINT pk_metric_block PRIMARY KEY (job_id, attempt, key_id, block),
    CONSTRAINT fk_metric_block_job_id_attempt
        FOREIGN KEY (job_id, attempt) REFERENCES attempt (job_id, number) ON DELETE CASCADE,
    CONSTRAINT fk_metric_block_key_id FOREIGN KEY (key_id) REFERENCES metric_key (id)
);
COMMENT ON TABLE metric_block IS
    'Segments of one attempt compacted: the points of 4,096 steps of one key, with their aggregates.';
    """,
    """
CREATE TABLE checkpoint (
    id bigint GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL,
    attempt integer NOT NULL,
    step bigint NOT NULL,
    kind text NOT NULL,
    model_blob_id bigint NOT NULL,
    state_blob_id bigint NOT NULL,
    summary jsonb DEFAULT '{}'::jsonb NOT NULL,
    complete boolean DEFAULT false NOT NULL,
    pinned boolean DEFAULT false NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    completed_at timestamptz,
    CONSTRAINT pk_checkpoint PRIMARY KEY (id),
    CONSTRAINT uq_checkpoint_job_id_attempt_step UNIQUE (job_id, attempt, step),
    CONSTRAINT fk_checkpoint_job_id_attempt
        FOREIGN KEY (job_id, attempt) REFERENCES attempt (job_id, number) ON DELETE CASCADE,
    CONSTRAINT ck_checkpoint_kind CHECK (kind IN ('interval', 'final', 'pause', 'drain')),
    CONSTRAINT ck_checkpoint_complete CHECK (complete = (completed_at IS NOT NULL)),
    CONSTRAINT fk_checkpoint_model_blob_id FOREIGN KEY (model_blob_id) REFERENCES blob (id),
    CONSTRAINT fk_checkpoint_state_blob_id FOREIGN KEY (state_blob_id) REFERENCES blob (id)
);
CREATE INDEX ix_checkpoint_model_blob_id ON checkpoint (model_blob_id);
CREATE INDEX ix_checkpoint_state_blob_id ON checkpoint (state_blob_id);
COMMENT ON TABLE checkpoint IS
    'Two blobs, the model''s weights and the rest of the training state; readable when complete.';
    """,
)

ROWS = (
    "INSERT INTO meta DEFAULT VALUES",
    "INSERT INTO project (name) VALUES ('default')",
)


def upgrade() -> None:
    for statement in SCHEMA + ROWS:
        op.execute(statement)
