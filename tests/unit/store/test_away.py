"""Which errors say that the database is away, and which that it refuses a row."""

from __future__ import annotations

import asyncpg
import pytest

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
