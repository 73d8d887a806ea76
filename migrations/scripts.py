"""Runs a migration that is written as plain SQL beside the revisions."""

from __future__ import annotations

from importlib import resources

from alembic import op


def run(name: str) -> None:
    """Run `migrations/sql/<name>.sql` in the migration's transaction."""
    script = (resources.files("migrations") / "sql" / f"{name}.sql").read_text()
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    # A script holds many statements, which only the driver's simple protocol takes at once.
    connection.run_async(lambda driver: driver.execute(script))
