"""Each month of each table is made by itself."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0027"
down_revision: str | Sequence[str] | None = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0027_partitions_one_by_one")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0027 cannot be undone; restore a backup instead.")
