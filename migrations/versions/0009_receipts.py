"""Signed receipts of usage, and the cases that they open."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0009_receipts")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0009 cannot be undone; restore a backup instead.")
