"""Evidence is read by source and endpoint."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0020"
down_revision: str | Sequence[str] | None = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0020_evidence_of_each")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0020 cannot be undone; restore a backup instead.")
