"""A damaged checkpoint is set aside; a job says why its resume was not exact."""

from __future__ import annotations

from alembic import op

revision = "0004_damage"
down_revision = "0003_checks"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE checkpoint ADD COLUMN damage text",
    """
COMMENT ON TABLE checkpoint IS
    'Two blobs, the model''s weights and the rest of the training state; readable when complete. '
    '`damage` says why no attempt starts from it any more.'
    """,
    "ALTER TABLE job ADD COLUMN resume_differences jsonb DEFAULT '[]' NOT NULL",
)


def upgrade() -> None:
    """A worker of the release before starts from a damaged checkpoint again, and fails; it does no harm."""
    for statement in STATEMENTS:
        op.execute(statement)
