"""Endpoints are examined on suites."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0018"
down_revision: str | Sequence[str] | None = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0018_suites")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0018 cannot be undone; restore a backup instead.")
