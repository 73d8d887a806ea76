"""Evidence of an examination gives way to that of a later one."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0022"
down_revision: str | Sequence[str] | None = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the script."""
    run("0022_runs")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("Migration 0022 cannot be undone; restore a backup instead.")
