"""An order is checked before anything large is made of it, and beside the calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import BrokerError, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.market.order_simulation import order_simulation
from broker.store.access.accounts import Role
from simulations.files.load import ScenarioFileMalformed
from simulations.orders import check

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEADY = {"scenario": "steady", "controllers": ["excess"]}


@pytest.mark.parametrize(
    ("asked", "cells"),
    [
        ({"grid": {name: [1.0] * 100 for name in "abcde"}}, 10**10),
        ({"grid": {"demand.scale": [1.0] * 21}, "seeds": 100}, 2_100),
        ({"grid": {"demand.scale": "1:2:21"}, "seeds": 100}, 2_100),
        ({"seeds": 10**12}, 10**12),
    ],
)
def test_an_order_of_too_many_runs_is_refused_before_one_is_made(
    asked: dict[str, Any], cells: int
) -> None:
    with pytest.raises(RequestMalformed, match=f"these are {cells}:"):
        check(STEADY | {"seeds": 1} | asked)
    played_again = {"from_broker_days": 1.0, "seeds": 1}
    with pytest.raises(RequestMalformed, match=f"these are {cells}:"):
        check(played_again | asked)


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        ({"demand.scale": "1:2:2001"}, "2001 values are more than 2000"),
        ({f"classes.0.x{number}": [1] for number in range(6)}, "grid: must have at most 5 members"),
    ],
)
def test_a_grid_of_too_many_values_is_refused_before_they_are_made(
    grid: dict[str, Any], why: str
) -> None:
    with pytest.raises((ScenarioFileMalformed, RequestMalformed), match=why):
        check(STEADY | {"seeds": 1, "grid": grid})


def test_a_number_of_hundreds_of_digits_is_none() -> None:
    with pytest.raises(ScenarioFileMalformed, match="must be a number"):
        check(STEADY | {"seeds": 1, "settings": {"demand.scale": 10**400}})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"seeds": "five"}, "seeds: must be a whole number, not a text."),
        (
            {"grid": {"controller.gain": 1.0}},
            "grid[...]: must be a text or a list, not a decimal number.",
        ),
        ({"sedes": 5}, "sedes: there is no such field."),
    ],
)
def test_what_is_wrong_with_an_order_is_told_in_plain_words(
    asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(RequestMalformed) as caught:
        check(STEADY | asked)
    assert caught.value.detail == told


class Noted(Mapping[str, Any]):
    """An order that notes which thread reads it."""

    def __init__(self) -> None:
        self.readers: set[int] = set()

    def __getitem__(self, name: str) -> Any:
        self.readers.add(threading.get_ident())
        return {"scenario": "nowhere"}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["scenario"])

    def __len__(self) -> int:
        return 1


async def test_an_order_is_checked_beside_the_calls() -> None:
    author, asked = Caller(UUID(int=1), "desk", Role.OPERATOR), Noted()
    with pytest.raises(BrokerError, match="no scenario 'nowhere'"):
        await order_simulation(cast("AsyncConnection", None), author, asked, NOW)
    assert asked.readers
    assert threading.get_ident() not in asked.readers
