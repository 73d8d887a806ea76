"""Brings a database to the newest schema, one process at a time."""

from __future__ import annotations

from importlib import resources

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from broker.store.database import create_engine

_LOCK = 0x6D6F64656C62  # any number that nothing else locks on


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply all migrations that are due, up to `revision`; waits while another process does."""
    engine = create_engine(database_url, connections_max=1)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(_run, revision)
    finally:
        await engine.dispose()


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
