"""Quotes of calls that may be answered more than once."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0024"
down_revision: str | Sequence[str] | None = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0024_quotes_of_cascades")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0024 cannot be undone; restore a backup instead.")
