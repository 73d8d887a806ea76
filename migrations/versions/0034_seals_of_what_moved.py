"""Seals of what moved, and checks that read less of large books."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0034"
down_revision: str | Sequence[str] | None = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0034_seals_of_what_moved")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0034 cannot be undone; restore a backup instead.")
