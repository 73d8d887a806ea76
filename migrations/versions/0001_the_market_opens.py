"""Accounts, catalog, ledger, calls, partitions and invariants: all that the market opens with."""

from collections.abc import Sequence

from migrations.scripts import run

revision = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels = None
depends_on = None

PARTS = ("accounts", "catalog", "ledger", "calls", "partitions", "invariants", "views")


def upgrade() -> None:
    """Run the parts in order, each a script of plain SQL."""
    for part in PARTS:
        run(f"0001_{part}")


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("The first migration cannot be undone; restore a backup instead.")
