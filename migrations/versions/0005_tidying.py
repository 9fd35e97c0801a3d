"""Indexes for what tidies up: workers that are gone, and uploads that never ended."""

from __future__ import annotations

from alembic import op

revision = "0005_tidying"
down_revision = "0004_damage"
branch_labels = None
depends_on = None

STATEMENTS = (
    "CREATE INDEX ix_job_worker_id ON job (worker_id) WHERE worker_id IS NOT NULL",
    "CREATE INDEX ix_attempt_worker_id ON attempt (worker_id)",
    "CREATE INDEX ix_checkpoint_unfinished ON checkpoint (job_id, attempt) WHERE NOT complete",
)


def upgrade() -> None:
    """The release before does not know them, and loses nothing."""
    for statement in STATEMENTS:
        op.execute(statement)
