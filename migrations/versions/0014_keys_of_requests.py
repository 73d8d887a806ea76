"""Requests know their key, and used quotes the process that uses them."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0014"
down_revision: str | Sequence[str] | None = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0014_keys_of_requests")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0014 cannot be undone; restore a backup instead.")
