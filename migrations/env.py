"""Runs the migrations on a given connection, or on `DATABASE_URL` for Alembic's own commands."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from broker.store.database import sqlalchemy_url


def migrate(connection: Connection) -> None:
    """Apply what is due, all of it in one transaction that waits for no lock for long: whoever
    comes later waits behind it."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = '3s'")
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_from_environment() -> None:
    """Connect as `DATABASE_URL` says and migrate."""
    engine = create_async_engine(sqlalchemy_url(os.environ["DATABASE_URL"]))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


given: Connection | None = context.config.attributes.get("connection")
if given is None:
    asyncio.run(migrate_from_environment())
else:
    migrate(given)
