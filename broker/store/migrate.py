"""Brings a database to the newest schema, one process at a time."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Final

import structlog
from alembic import command
from alembic.config import Config
from asyncpg import LockNotAvailableError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import Unavailable
from broker.store.database import create_engine
from broker.store.revision import require_known

_LOCK: Final = 0x6D6F64656C62  # any number that nothing else locks on
_TRIES: Final = 5
_PAUSE_S: Final = 3.0
"""Whoever waited behind a try has the tables for as long as it had them at most."""

_log = structlog.get_logger()


async def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply all migrations that are due, up to `revision`; waits while another process does.

    Raises Unavailable where other transactions keep a table for too long, try after try, and
    SchemaUnfit where a newer version has been here; then nothing has changed.
    """
    engine = create_engine(database_url, connections_max=1)
    try:
        for left in reversed(range(_TRIES)):
            if await _applied(engine, revision):
                return
            if left:
                _log.warning("upgrade_waits_for_a_lock", tries_left=left)
                await asyncio.sleep(_PAUSE_S)
    finally:
        await engine.dispose()
    raise Unavailable(
        "The database was not upgraded: a long transaction keeps one of its tables."
        " End it (see pg_stat_activity), or wait until it ends, and start again."
    )


async def _applied(engine: AsyncEngine, revision: str) -> bool:
    """Apply what is due, or nothing and return False where a lock was not to be had."""
    try:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await require_known(connection)
            await connection.run_sync(_run, revision)
    except LockNotAvailableError:
        return False  # of a script, which the driver runs itself
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LockNotAvailableError.sqlstate:
            raise
        return False
    return True


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(resources.files("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
