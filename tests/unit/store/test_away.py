"""Which errors say that the database is away, and which that it refuses a row."""

from __future__ import annotations

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from broker.store.away import is_database_away
from broker.store.ledger import is_away


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset by peer"),
        TimeoutError(),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 15; another operation is in progress"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert is_away(error)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.CheckViolationError("violates a check"),
        asyncpg.UniqueViolationError("is there already"),
        asyncpg.NumericValueOutOfRangeError("out of range"),
        ValueError("no error of the driver"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_be_refused_for_ever_is_held_against_the_rows(error: Exception) -> None:
    assert not is_away(error)


def wrapped(error: Exception) -> DBAPIError:
    """As SQLAlchemy's adapter of the driver raises it."""
    adapted = Exception(str(error))
    adapted.__cause__ = error
    return DBAPIError("INSERT", {}, adapted)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset by peer"),
        asyncpg.TooManyConnectionsError("sorry, too many clients already"),
        asyncpg.DiskFullError("could not extend file"),
        asyncpg.OutOfMemoryError("out of memory"),
        asyncpg.PostgresIOError("could not write"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
        asyncpg.QueryCanceledError("canceling statement"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.InvalidPasswordError("password authentication failed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_a_database_that_is_away_however_it_is_told(error: Exception) -> None:
    assert is_database_away(error)
    assert is_database_away(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError("is there already"),
        asyncpg.UndefinedTableError("relation does not exist"),
        asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_statement_that_was_refused_is_no_database_that_is_away(error: Exception) -> None:
    assert not is_database_away(error)
    assert not is_database_away(wrapped(error))
