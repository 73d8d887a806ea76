"""Runs a flow for a command: connects to the database of the broker that runs here, and closes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.cli.state import StateFolder
from broker.flows.access.authenticate import Caller
from broker.logs import configure_logging
from broker.settings import Settings
from broker.store.access.accounts import Role
from broker.store.away import unavailable_when_away
from broker.store.database import create_engine
from broker.store.revision import require_newest
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy

Answer = TypeVar("Answer")

OPERATOR = Caller(UUID(int=0), "command-line", Role.OPERATOR)
"""Who has a shell on the broker's machine is an operator."""


def run_with_engine(
    folder: StateFolder, work: Callable[[AsyncEngine], Awaitable[Answer]]
) -> Answer:
    """Do `work` on the database of the broker of `folder`.

    Raises SettingInvalid without one, Unavailable when it cannot be reached, SchemaUnfit when it is
    of another version.
    """
    database_url = folder.database_url()
    configure_logging()  # or it would stand among what the command says

    async def connected() -> Answer:
        engine = create_engine(database_url, connections_max=2)
        try:
            with unavailable_when_away():
                async with engine.connect() as connection:
                    await require_newest(connection)
                return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(connected())


def settings(folder: StateFolder, allow_networks: str | None = None) -> Settings:
    networks = folder.allow_networks() if allow_networks is None else allow_networks
    env = os.environ | {
        "DATABASE_URL": folder.database_url(),
        "VALKEY_URL": "none is needed",
        "BROKER_SECRET_KEY": folder.secret_key(),
        "BROKER_ALLOW_NETWORKS": networks,
    }
    return Settings.from_env(env)


def sealer(folder: StateFolder) -> Sealer:
    """Return what opens the secrets of the broker of `folder`. Raises SettingInvalid."""
    found = settings(folder)
    return Sealer(found.secret_key, found.secret_keys_old)


def policy(folder: StateFolder, allow_networks: str | None = None) -> AddressPolicy:
    """Return what may be connected to: these networks, by default those that the broker of
    `folder` may. Raises SettingInvalid."""
    return AddressPolicy(settings(folder, allow_networks).allowed_networks)


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
