"""Firm quotes."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0005_quotes")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0005 cannot be undone; restore a backup instead.")
