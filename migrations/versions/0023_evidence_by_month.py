"""Evidence is kept by months, with how sure a model was."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0023"
down_revision: str | Sequence[str] | None = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0023_evidence_by_month")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0023 cannot be undone; restore a backup instead.")
