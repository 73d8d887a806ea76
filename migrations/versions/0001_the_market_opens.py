"""Accounts, catalog, ledger, calls, partitions and invariants: all that the market opens with."""

from collections.abc import Sequence
from importlib import resources

from alembic import op

revision = "0001"
down_revision: str | Sequence[str] | None = None
branch_labels = None
depends_on = None

PARTS = ("accounts", "catalog", "ledger", "calls", "partitions", "invariants", "views")


def upgrade() -> None:
    """Run the parts in order, each a script of plain SQL."""
    folder = resources.files("migrations") / "sql"
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    for part in PARTS:
        script = (folder / f"0001_{part}.sql").read_text()
        # A script holds many statements, which only the driver's simple protocol takes at once.
        connection.run_async(lambda driver, script=script: driver.execute(script))


def downgrade() -> None:
    """Refuse: money is not undone."""
    raise RuntimeError("The first migration cannot be undone; restore a backup instead.")
