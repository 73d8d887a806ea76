"""The replay of invoices folds each account once."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0015"
down_revision: str | Sequence[str] | None = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0015_replay_of_invoices")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0015 cannot be undone; restore a backup instead.")
