"""Price advice from a provider's own call log."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import insert

from broker.store.money.plans import id_at
from broker.store.tables import calls, price_changes
from tests.integration.api.conftest import Person, SmallBroker, Standing
from tests.integration.api.listing import list_endpoints, publish

PERIODS = 96
PERIOD = timedelta(minutes=15)


@pytest.fixture
async def market(broker: SmallBroker, provider: Person) -> None:
    """`acme/law`: list price 0.20 and 0.60 USD per Mtok."""
    await list_endpoints(broker, provider.account)
    await publish(broker, 1, 200_000, at=datetime.now(UTC) - timedelta(days=2))


async def sell(broker: SmallBroker, consumer: Person, elasticity: float) -> None:
    """A day of sales: each quarter of an hour its own price, and calls that mind it so much."""
    rng = np.random.default_rng(8)
    now_s = int(broker.clock().timestamp()) // 900 * 900
    begins = datetime.fromtimestamp(now_s, UTC) - PERIODS * PERIOD
    moved = np.exp(rng.normal(0.0, 0.2, PERIODS))
    sold, changed = [], []
    for place, factor in enumerate(moved):
        at = begins + place * PERIOD
        rates = {"rate_in_micros": int(200_000 * factor), "rate_out_micros": int(600_000 * factor)}
        told = {"endpoint_number": 0, "version": 10 + place, "at": at - timedelta(seconds=5)}
        changed.append(told | rates | {"rate_call_nanos": 0, "load": 0.5})
        count = rng.poisson(20 * factor**-elasticity)
        sold += [
            call(consumer, at + timedelta(seconds=each)) for each in rng.uniform(1, 890, count)
        ]
    async with broker.engine.begin() as connection:
        await connection.execute(insert(price_changes), changed)
        await connection.execute(insert(calls), sold)


def call(consumer: Person, at: datetime) -> dict[str, Any]:
    return {
        "id": UUID(int=id_at(at).int | secrets.randbits(70)),
        "created_at": at,
        "account_id": consumer.account.id,
        "key_id": "k",
        "task": "chat",
        "model": "tiny-law",
        "stream": False,
        "status": 200,
        "code": "served",
        "endpoint_number": 0,
        "price_version": 1,
        "hold_nanos": 0,
        "charge_nanos": 0,  # or the ledger would want to know of it
        "tokens_in": 1_000,
        "tokens_out": 500,
        "duration_ms": 2_000.0,
        "story": b"",
    }


async def advice(person: Person, **asked: Any) -> dict[str, Any]:
    answer = await person.http.get("/api/price-advice", params={"endpoint": "acme/law"} | asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_calls_that_do_not_mind_the_price_could_be_dearer(
    broker: SmallBroker, market: None, provider: Person, consumer: Person
) -> None:
    await sell(broker, consumer, elasticity=0.3)
    told = await advice(provider, days=2)
    assert told["reason"] == "inelastic"
    assert "dearer" in told["sentence"]
    assert told["elasticity"]["low"] <= 0.4
    assert told["elasticity"]["high"] >= 0.2
    assert told["gain"]["best"] > 0.05
    assert told["usual_call"]["tokens_in"] == 1_000.0
    # 1,000 tokens at 0.20 and 500 at 0.60 USD per Mtok
    assert told["usual_call"]["listed_usd"] == "0.0005"
    listed = told["listed"]
    assert float(listed["price_in_usd"]) == pytest.approx(
        0.20 * told["listed_factor"]["best"], rel=1e-3
    )
    assert float(listed["price_out_usd"]) == pytest.approx(3 * float(listed["price_in_usd"]))
    assert float(told["floor"]["price_in_usd"]) <= float(listed["price_in_usd"])
    assert float(listed["price_in_usd"]) <= float(told["ceiling"]["price_in_usd"])


async def test_calls_that_mind_it_much_could_be_cheaper_but_not_below_cost(
    broker: SmallBroker, market: None, provider: Person, consumer: Person
) -> None:
    await sell(broker, consumer, elasticity=2.5)
    assert (await advice(provider, days=2))["reason"] == "elastic"
    kept = await advice(provider, days=2, cost_usd="0.0004")
    assert kept["listed_factor"]["best"] > 1.0


async def test_without_sales_nothing_is_advised(market: None, provider: Person) -> None:
    told = await advice(provider)
    assert told["reason"] == "too_few_calls"
    assert told["listed"] is None
    assert told["gain"] is None
    assert told["usual_call"]["calls"] == 0
    assert told["usual_call"]["listed_usd"] is None, "nobody knows what a call is"


async def test_advice_is_for_whose_endpoint_it_is(
    market: None,
    provider: Person,
    other_provider: Person,
    operator: Person,
    consumer: Person,
) -> None:
    asked = {"params": {"endpoint": "acme/law"}}
    assert (await other_provider.http.get("/api/price-advice", **asked)).status_code == 404
    assert (await consumer.http.get("/api/price-advice", **asked)).status_code == 403
    assert (await operator.http.get("/api/price-advice", **asked)).status_code == 200


@pytest.mark.parametrize(
    "asked", [{"days": 0}, {"days": 29}, {"cost_usd": "-1"}, {"cost_usd": "NaN"}, {"day": 1}]
)
async def test_a_question_without_sense_is_refused(
    standing: Standing, asked: dict[str, Any]
) -> None:
    params = {"endpoint": "acme/law"} | asked
    answer = await standing.provider.http.get("/api/price-advice", params=params)
    assert answer.status_code == 400, answer.text
