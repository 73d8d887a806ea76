"""What is raised when PostgreSQL is away, for the loops that go on with what was last known."""

from __future__ import annotations

from typing import Final

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

DRIVER_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""By the driver: the last is of a connection that broke in the midst of something."""

DATABASE_AWAY: Final = (*DRIVER_AWAY, SQLAlchemyError)
"""SQLAlchemy passes on what happens while it connects as it is, and wraps the rest."""
