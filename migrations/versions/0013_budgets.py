"""Budgets count what was open when they began, and give back what is refunded."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0013"
down_revision: str | Sequence[str] | None = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0013_budgets")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0013 cannot be undone; restore a backup instead.")
