"""Retry from the start: the wish is kept with the job until its next attempt begins."""

from __future__ import annotations

from alembic import op

revision = "0002_verbs"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A worker of the release before cannot claim such a job, and claims no other while it is the best one due: it
    would go on from a checkpoint instead. Upgrade the workers before the api.
    """
    op.execute(
        """
ALTER TABLE job
    ADD COLUMN restart boolean DEFAULT false NOT NULL,
    ADD CONSTRAINT ck_job_restart_while_waiting CHECK (state <> 'running' OR NOT restart)
        """
    )
