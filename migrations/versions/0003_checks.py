"""Checks: jobs of another kind that replay a part of a job, what they look at, and what they found."""

from __future__ import annotations

from alembic import op

revision = "0003_checks"
down_revision = "0002_verbs"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
ALTER TABLE job
    ADD COLUMN kind text DEFAULT 'train' NOT NULL,
    ADD CONSTRAINT ck_job_kind CHECK (kind IN ('audit', 'train', 'verify'))
    """,
    """
CREATE TABLE check_run (
    id uuid NOT NULL,
    subject_job_id uuid NOT NULL,
    checkpoint_id bigint,
    from_checkpoint_id bigint,
    from_step bigint NOT NULL,
    to_step bigint NOT NULL,
    result jsonb,
    CONSTRAINT pk_check_run PRIMARY KEY (id),
    CONSTRAINT ck_check_run_steps CHECK (0 <= from_step AND from_step < to_step),
    CONSTRAINT ck_check_run_start CHECK (from_checkpoint_id IS NOT NULL OR from_step = 0),
    CONSTRAINT fk_check_run_id FOREIGN KEY (id) REFERENCES job (id) ON DELETE CASCADE,
    CONSTRAINT fk_check_run_subject_job_id FOREIGN KEY (subject_job_id) REFERENCES job (id) ON DELETE CASCADE
)
    """,
    "CREATE INDEX ix_check_run_subject_job_id_id ON check_run (subject_job_id, id)",
    """
COMMENT ON TABLE check_run IS
    'What a job of kind verify or audit replays, and its result. No foreign keys to checkpoints: they may be deleted.'
    """,
)


def upgrade() -> None:
    """To a worker of the release before a check is a job to train: upgrade the workers before the api."""
    for statement in STATEMENTS:
        op.execute(statement)
