"""Checks of the open period go by indexes, and know beforehand when it began."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0032"
down_revision: str | Sequence[str] | None = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0032_checks_of_the_open_period")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0032 cannot be undone; restore a backup instead.")
