"""Choosing controllers over HTTP: who may, who sees it, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from broker.store.webhooks.events import events
from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker, Standing
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.catalog.offers import endpoint_offer


@pytest.fixture
async def market(broker: SmallBroker, provider: Person, other_provider: Person) -> None:
    """`acme/law`, a specialist, and `globex/drafts`."""
    law = endpoint_offer(domains={"law": 0.9, "tax": 0.4})
    await list_endpoints(broker, provider.account, law)
    await list_endpoints(broker, other_provider.account, endpoint_offer(name="drafts"))
    await publish(broker, 1, 200_000)


async def choose(person: Person, **asked: Any) -> str:
    answer = await person.http.post("/api/pricing", json=asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def moved_by(person: Person) -> dict[str, tuple[str, str]]:
    shown = (await person.http.get("/api/pricing")).json()
    return {each["endpoint"]: (each["controller"], each["scope"]) for each in shown["endpoints"]}


async def test_the_narrowest_choice_moves_the_price(market: None, operator: Person) -> None:
    usual = ("excess", "market")
    assert await moved_by(operator) == {"acme/law": usual, "globex/drafts": usual}
    await choose(operator, scope="market", controller="pi", parameters={"kp": 0.3})
    await choose(operator, scope="domain", subject="law", controller="shadow")
    await choose(operator, scope="domain", subject="tax", controller="revenue")
    assert await moved_by(operator) == {
        "acme/law": ("shadow", "domain"),
        "globex/drafts": ("pi", "market"),
    }
    await choose(operator, scope="endpoint", subject="acme/law", controller="posted")
    await choose(operator, scope="provider", subject="globex", controller="posted")
    assert await moved_by(operator) == {
        "acme/law": ("posted", "endpoint"),
        "globex/drafts": ("posted", "provider"),
    }


async def test_who_moves_the_prices_of_a_market_is_looked_up_and_written_beside_the_calls(
    market: None, operator: Person
) -> None:
    with done_beside() as done:
        answer = await operator.http.get("/api/pricing")
    moved, text = done.results()[-2:]
    assert [each.endpoint for each in moved] == ["acme/law", "globex/drafts"]
    assert text == answer.content


async def test_for_a_domain_that_is_taught_can_be_chosen_before_an_endpoint_claims_it(
    operator: Person,
) -> None:
    asked = {"scope": "domain", "subject": "surgery", "controller": "posted"}
    refused = await operator.http.post("/api/pricing", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    examples = [f"Which scalpel is fit for case number {number}?" for number in range(20)]
    taught = await operator.http.put("/api/domains/surgery", json={"examples": examples})
    assert taught.status_code == 200, taught.text
    await choose(operator, **asked)


async def test_a_provider_chooses_for_itself_and_sees_what_concerns_it(
    market: None, operator: Person, provider: Person, other_provider: Person
) -> None:
    await choose(operator, scope="market", controller="pi")
    await choose(provider, scope="provider", subject="acme", controller="posted")
    assert await moved_by(provider) == {"acme/law": ("posted", "provider")}
    assert await moved_by(other_provider) == {"globex/drafts": ("pi", "market")}
    shown = (await other_provider.http.get("/api/pricing")).json()["choices"]
    assert [each["controller"] for each in shown] == ["pi"]
    for asked, status in (
        ({"scope": "market"}, 403),
        ({"scope": "domain", "subject": "law"}, 403),
        ({"scope": "provider", "subject": "globex"}, 404),
        ({"scope": "endpoint", "subject": "globex/drafts"}, 404),
    ):
        answer = await provider.http.post("/api/pricing", json={"controller": "posted", **asked})
        assert answer.status_code == status, answer.text


async def test_a_consumer_has_no_say(market: None, consumer: Person) -> None:
    assert (await consumer.http.get("/api/pricing")).status_code == 403
    asked = {"scope": "market", "controller": "posted"}
    assert (await consumer.http.post("/api/pricing", json=asked)).status_code == 403


async def test_a_choice_that_ends_gives_way_to_what_it_lay_over(
    market: None, operator: Person, provider: Person, other_provider: Person
) -> None:
    await choose(operator, scope="market", controller="pi")
    over = await choose(operator, scope="market", controller="shadow")
    own = await choose(provider, scope="provider", subject="acme", controller="posted")
    assert (await other_provider.http.post(f"/api/pricing/{own}/end")).status_code == 404
    assert (await provider.http.post(f"/api/pricing/{over}/end")).status_code == 404
    assert (await provider.http.post(f"/api/pricing/{own}/end")).status_code == 201
    assert (await operator.http.post(f"/api/pricing/{over}/end")).status_code == 201
    assert set((await moved_by(operator)).values()) == {("pi", "market")}
    again = await operator.http.post(f"/api/pricing/{over}/end")
    assert (again.status_code, again.json()["code"]) == (409, "choice_over")


async def test_a_choice_has_a_beginning_and_an_end(
    broker: SmallBroker, market: None, operator: Person
) -> None:
    soon = broker.clock() + timedelta(hours=1)
    until = soon + timedelta(days=2)
    schedule = {"steps": [{"from": "08:00", "factor": 1.5, "days": ["mon"]}]}
    await choose(
        operator,
        scope="market",
        controller="posted",
        schedule=schedule,
        valid_from=soon.isoformat(),
        valid_to=until.isoformat(),
        reason="a fair",
    )
    (shown,) = (await operator.http.get("/api/pricing")).json()["choices"]
    assert shown["in_force"] is False
    assert shown["schedule"] == schedule | {"utc_offset_minutes": 0}
    assert (shown["author"], shown["reason"]) == ("ops", "a fair")
    assert set((await moved_by(operator)).values()) == {("excess", "market")}
    broker.clock = lambda: soon
    assert set((await moved_by(operator)).values()) == {("posted", "market")}
    broker.clock = lambda: until
    shown = (await operator.http.get("/api/pricing")).json()
    assert shown["choices"] == []
    assert set((await moved_by(operator)).values()) == {("excess", "market")}


async def test_choosing_and_ending_are_audited_and_told(
    broker: SmallBroker, market: None, operator: Person, provider: Person
) -> None:
    choice = await choose(provider, scope="endpoint", subject="acme/law", controller="posted")
    await operator.http.post(f"/api/pricing/{choice}/end")
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    assert [(each["action"], each["author"]) for each in entries[:2]] == [
        ("end_pricing", "ops"),
        ("choose_pricing", "acme"),
    ]
    assert entries[1]["detail"]["controller"] == "posted"
    async with broker.engine.connect() as connection:
        query = select(events.c.kind, events.c.account_id).where(events.c.kind.like("pricing.%"))
        told = (await connection.execute(query.order_by(events.c.number))).all()
    assert [tuple(each) for each in told] == [
        ("pricing.chosen", provider.account.id),
        ("pricing.ended", provider.account.id),
    ]


async def test_a_choice_sent_again_under_its_key_is_made_once(
    market: None, operator: Person
) -> None:
    asked, headers = {"scope": "market", "controller": "pi"}, {"idempotency-key": "choice-1"}
    answers = [await operator.http.post("/api/pricing", json=asked, headers=headers) for _ in "ab"]
    assert answers[0].content == answers[1].content
    assert len((await operator.http.get("/api/pricing")).json()["choices"]) == 1


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"controller": "magic"}, 400, "controller: is one of posted, excess"),
        ({"parameters": {"k": 1}}, 400, "parameters.k: 'excess' takes target, k_s"),
        ({"parameters": {"k_s": 0}}, 400, "above zero"),
        ({"parameters": {"k_s": "fast"}}, 400, "parameters"),
        ({"subject": "law"}, 400, "subject"),
        ({"scope": "domain"}, 400, "subject"),
        ({"scope": "galaxy"}, 400, "scope"),
        ({"valid_from": "2020-01-01T00:00:00Z"}, 400, "valid_from"),
        ({"valid_from": "2999-01-01T00:00:00Z"}, 400, "valid_from"),
        ({"valid_to": "2020-01-01T00:00:00Z"}, 400, "valid_to"),
        ({"schedule": {"steps": [{"from": "8", "factor": 1}]}}, 400, "schedule: step 0"),
        ({"schedule": {"steps": []}}, 400, "schedule"),
        ({"schedule": {"step": []}}, 400, "schedule"),
        ({"scope": "provider", "subject": "nobody"}, 404, "no provider named 'nobody'"),
        ({"scope": "provider", "subject": "ops"}, 404, "no provider named 'ops'"),
        ({"scope": "endpoint", "subject": "acme/none"}, 404, "no endpoint named"),
        ({"scope": "domain", "subject": "nosuch"}, 404, "no domain named 'nosuch'"),
        ({"tempo": 1}, 400, "tempo"),
    ],
)
async def test_a_choice_without_sense_is_refused_by_name(
    standing: Standing, changes: dict[str, Any], status: int, told: str
) -> None:
    asked = {"scope": "market", "controller": "excess"} | changes
    answer = await standing.operator.http.post("/api/pricing", json=asked)
    assert answer.status_code == status, answer.text
    assert told in answer.text
    assert (await standing.operator.http.get("/api/pricing")).json()["choices"] == []
