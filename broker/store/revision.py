"""Holds a process to the schema that it was written for: on another one it could break money."""

from __future__ import annotations

import asyncio
from importlib import resources
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import SchemaUnfit
from broker.store.away import is_database_away
from broker.store.database import create_engine

_LOOK_S: Final = 5.0


def newest_revision() -> str:
    """Return the newest revision of the schema that this version knows, such as `0031`."""
    files = (resources.files("migrations") / "versions").iterdir()
    return max(file.name.partition("_")[0] for file in files if file.name[0].isdigit())


async def revision_of(connection: AsyncConnection) -> str | None:
    """Return the revision that a database is at, None where it has no schema yet."""
    table = await connection.scalar(text("SELECT to_regclass('alembic_version')::text"))
    if table is None:
        return None
    found: str | None = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


async def require_known(connection: AsyncConnection) -> str | None:
    """Return what `revision_of` does. Raises SchemaUnfit where a newer version has been here."""
    found, newest = await revision_of(connection), newest_revision()
    if found is not None and found > newest:
        raise SchemaUnfit(
            f"A newer version has migrated the database, to revision {found} where this one knows"
            f" none after {newest}: run that version, or restore a backup from before."
        )
    return found


async def require_newest(connection: AsyncConnection) -> None:
    """Raise SchemaUnfit unless the database is at the newest revision that this version knows."""
    found, newest = await require_known(connection), newest_revision()
    if found is None:
        raise SchemaUnfit("The database has no schema yet: run 'broker migrate' first.")
    if found != newest:
        raise SchemaUnfit(
            f"The database is at revision {found}, and this version needs {newest}:"
            " run 'broker migrate' first."
        )


async def require_newest_at(database_url: str) -> None:
    """Raise SchemaUnfit as `require_newest` does; a database that is away says nothing, for who
    works on it will wait for it."""
    engine = create_engine(database_url, connections_max=1)
    try:
        async with asyncio.timeout(_LOOK_S), engine.connect() as connection:
            await require_newest(connection)
    except Exception as error:
        if not is_database_away(error):
            raise
    finally:
        await engine.dispose()
