"""Feedback teaches what it is worth that two answers agreed."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0029"
down_revision: str | Sequence[str] | None = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0029_agreement_of_answers")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0029 cannot be undone; restore a backup instead.")
