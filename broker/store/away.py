"""What is raised when PostgreSQL is away: for loops that go on with what was last known, and for
who must tell it from a statement that was refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.errors import Unavailable

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

_FOR_NOW: Final = (
    OSError,
    PoolTimeout,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
)
"""What says nothing of a statement: nobody is there, its disk or its connections are full, it is
being shut down, it is a replica that only reads, or others were in the way."""


_UNKEEPABLE: Final = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
    asyncpg.DatetimeFieldOverflowError,
)
"""What PostgreSQL says of a text with a NUL, and of a time that it has no place for."""


def is_database_away(error: BaseException) -> bool:
    """True when PostgreSQL cannot be used for now, as against having refused a statement."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or isinstance(driver_error(error), _FOR_NOW)
    return isinstance(error, _FOR_NOW)


@contextmanager
def unavailable_when_away() -> Iterator[None]:
    """Raise Unavailable, in one line, where PostgreSQL cannot be used for now."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The database cannot be reached: {error}.") from None
    except DBAPIError as error:
        if not is_database_away(error):
            raise
        raise Unavailable(f"The database cannot be used for now: {told(error)}.") from None


def is_unkeepable(error: BaseException) -> bool:
    """True when the database cannot keep a value that the caller sent, whatever it is for."""
    if not isinstance(error, DBAPIError):
        return False
    cause = driver_error(error)
    # Of just this class is what the driver itself cannot send.
    return isinstance(cause, _UNKEEPABLE) or type(cause) is asyncpg.DataError


def told(error: BaseException) -> str:
    """Return one line of what was raised, its kind first: a time-out has no other words."""
    if isinstance(error, DBAPIError):
        error = driver_error(error) or error
    words = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def driver_error(error: DBAPIError) -> BaseException | None:
    """Return what the driver raised: SQLAlchemy's adapter wraps it once more."""
    return error.orig.__cause__ if error.orig is not None else None
