"""What is refunded is free in the budgets of its key again, while their periods last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from broker.store.access.key_text import parse
from broker.store.books import budgets
from broker.store.books.budgets import Budgets
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.recourse import Told, charge, open_market

DAY_NANOS = 500_000
Figures = Callable[[datetime | None], Awaitable[dict[str, int]]]


@pytest.fixture
async def shop(broker: SmallBroker, operator: Person, consumer: Person, provider: Person) -> Person:
    await open_market(broker, provider)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "1"})
    return consumer


@pytest.fixture
def told(shop: Person) -> Told:
    """Calls of the consumer's own key."""
    parts = parse(shop.key)
    assert parts is not None
    return Told(key_id=parts[0])


@pytest.fixture
def spent(broker: SmallBroker, told: Told) -> Figures:
    """What the key has spent, by kind of budget."""

    async def read(at: datetime | None = None) -> dict[str, int]:
        async with broker.engine.connect() as connection:
            when = at or datetime.now(UTC)
            standing = await budgets.read_budgets(connection, told.key_id, when)
        assert not any(each.held_nanos for each in standing)
        return {each.kind.value: each.spent_nanos for each in standing}

    return read


async def limit(broker: SmallBroker, told: Told) -> None:
    async with broker.engine.begin() as connection:
        await budgets.set_budgets(connection, told.key_id, Budgets(day_nanos=DAY_NANOS))


async def give_back(operator: Person, call_id: object, amount_usd: str) -> httpx.Response:
    wanted = {"reason": "wrong answer", "amount_usd": amount_usd}
    answer = await operator.http.post(f"/api/calls/{call_id}/refunds", json=wanted)
    assert answer.status_code == 201, answer.text
    return answer


async def test_what_is_refunded_in_the_same_period_can_be_spent_again(
    broker: SmallBroker, operator: Person, shop: Person, told: Told, spent: Figures
) -> None:
    await limit(broker, told)
    call_id = await charge(broker, shop, (0, 499), told=told)
    with pytest.raises(AssertionError):
        await charge(broker, shop, (0, 399), told=told)
    await give_back(operator, call_id, "0.0004")
    assert await spent(None) == {"day": 99_000, "month": 99_000, "total": 99_000}
    await charge(broker, shop, (0, 399), told=told)
    await give_back(operator, call_id, "0.000099")
    assert await spent(None) == {"day": 399_000, "month": 399_000, "total": 399_000}


async def test_what_is_refunded_when_the_period_is_over_counts_in_the_whole_alone(
    broker: SmallBroker, operator: Person, shop: Person, told: Told, spent: Figures
) -> None:
    await limit(broker, told)
    long_ago = datetime.now(UTC) - timedelta(days=40)
    broker.clock = lambda: long_ago
    with pytest.raises(AssertionError):
        await charge(broker, shop, (0, 300), told=told)  # it opens the periods of that time
    call_id = await charge(broker, shop, (0, 300), told=told)
    broker.clock = lambda: datetime.now(UTC)
    await give_back(operator, call_id, "0.0001")
    assert await spent(long_ago) == {"day": 300_000, "month": 300_000, "total": 200_000}
    assert (await spent(None))["day"] == 0


async def test_what_was_spent_before_the_first_budget_is_given_back_as_well(
    broker: SmallBroker, operator: Person, shop: Person, told: Told, spent: Figures
) -> None:
    first = await charge(broker, shop, (0, 300), told=told)
    await give_back(operator, first, "0.0001")
    await limit(broker, told)
    assert (await spent(None))["day"] == 200_000
    await give_back(operator, first, "0.00015")
    assert await spent(None) == {"day": 50_000, "month": 50_000, "total": 50_000}


async def test_a_budget_that_was_cut_below_what_is_spent_shrinks_with_a_refund(
    broker: SmallBroker, operator: Person, shop: Person, told: Told, spent: Figures
) -> None:
    await limit(broker, told)
    call_id = await charge(broker, shop, (0, 400), told=told)
    async with broker.engine.begin() as connection:
        await budgets.set_budgets(connection, told.key_id, Budgets(day_nanos=100_000))
    await give_back(operator, call_id, "0.00035")
    assert (await spent(None))["day"] == 50_000
    with pytest.raises(AssertionError):
        await charge(broker, shop, (0, 50), told=told)
    await charge(broker, shop, (0, 49), told=told)


async def test_a_refund_of_a_key_without_budgets_counts_nowhere(
    broker: SmallBroker, operator: Person, shop: Person, told: Told, spent: Figures
) -> None:
    call_id = await charge(broker, shop, (0, 300), told=told)
    await give_back(operator, call_id, "0.0001")
    assert await spent(None) == {}
