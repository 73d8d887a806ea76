"""Calls over HTTP: the whole story to who paid, to providers their own attempts only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.api.sales import hold_only, sell
from tests.integration.catalog.offers import endpoint_offer

MADE_UP = "/api/calls/00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def failed_over(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    provider: Person,
    other_provider: Person,
) -> UUID:
    """A call whose first attempt failed at acme, and that globex served."""
    await list_endpoints(broker, provider.account, endpoint_offer(name="best", quality=0.9))
    await list_endpoints(broker, other_provider.account, endpoint_offer(name="next", quality=0.5))
    await publish(broker, 7, 1_000_000)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "5"})
    return await sell(broker, consumer, fails_first=True)


async def story(person: Person, call_id: UUID) -> dict[str, Any]:
    answer = await person.http.get(f"/api/calls/{call_id}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_who_paid_reads_the_whole_story(consumer: Person, failed_over: UUID) -> None:
    told = await story(consumer, failed_over)
    assert (told["account"], told["status"], told["end"]) == ("shop", 200, "delivered")
    assert told["endpoint"] == "globex/next"
    assert told["requirements"]["model"] == "auto"
    assert [each["endpoint"] for each in told["candidates"]] == ["acme/best", "globex/next"]
    assert told["candidates"][0]["score"] > told["candidates"][1]["score"]
    assert set(told["candidates"][0]["parts"]) >= {"quality", "cost", "latency", "availability"}
    first, second = told["attempts"]
    assert (first["endpoint"], first["outcome"]) == ("acme/best", "connect_failed")
    assert first["detail"] == "connection refused"
    assert (second["endpoint"], second["outcome"]) == ("globex/next", "delivered")
    assert (second["duration_ms"], second["ttft_ms"]) == (500.0, 100.0)
    [line] = told["lines"]
    assert (line["endpoint"], line["charge_usd"]) == ("globex/next", "0.002")
    assert line["price"]["price_in_usd"] == "1.00"
    assert told["charge_usd"] == "0.002"
    assert told["labels"] == {"team": "a"}


async def test_rejected_endpoints_are_told_with_the_reason(
    broker: SmallBroker, operator: Person, consumer: Person, provider: Person
) -> None:
    small = endpoint_offer(name="small", context_length_tokens=10)
    await list_endpoints(broker, provider.account, endpoint_offer(), small)
    await publish(broker, 1, 1_000_000)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "5"})
    told = await story(consumer, await sell(broker, consumer))
    [rejected] = told["rejected"]
    assert rejected["endpoint"] == "acme/small"
    assert "context" in rejected["reason"]


async def test_a_provider_sees_its_own_attempts_and_nothing_of_rivals_or_wishes(
    provider: Person, other_provider: Person, failed_over: UUID
) -> None:
    lost = await story(provider, failed_over)
    assert [each["endpoint"] for each in lost["attempts"]] == ["acme/best"]
    assert (lost["lines"], lost["earnings_usd"]) == ([], "0.00")
    won = await story(other_provider, failed_over)
    assert [each["endpoint"] for each in won["attempts"]] == ["globex/next"]
    assert won["earnings_usd"] == "0.0018"
    for told in (lost, won):
        assert told.keys() == {
            "id",
            "created_at",
            "task",
            "stream",
            "lines",
            "earnings_usd",
            "attempts",
        }


async def test_of_a_call_whose_story_is_forgotten_the_charge_is_told(
    broker: SmallBroker,
    consumer: Person,
    provider: Person,
    other_provider: Person,
    failed_over: UUID,
) -> None:
    async with broker.engine.begin() as connection:
        await connection.execute(text("UPDATE calls SET story = ''"))
    told = await story(consumer, failed_over)
    assert (told["end"], told["charge_usd"], told["endpoint"]) == (
        "forgotten",
        "0.002",
        "globex/next",
    )
    assert (told["attempts"], told["candidates"], told["requirements"]) == ([], [], {})
    won = await story(other_provider, failed_over)
    assert (won["attempts"], won["earnings_usd"]) == ([], "0.0018")
    lost = await provider.http.get(f"/api/calls/{failed_over}")
    assert lost.status_code == 404, "that it tried is forgotten"
    rated = await consumer.http.post(f"/api/calls/{failed_over}/feedback", json={"score": 0.5})
    assert rated.status_code == 201, rated.text


async def test_who_was_paid_for_a_part_of_a_call_sees_it_when_its_story_is_forgotten(
    broker: SmallBroker, provider: Person, other_provider: Person, failed_over: UUID
) -> None:
    async with broker.engine.begin() as connection:
        # As of a cascade whose first answer, by globex, was paid and not good enough.
        ended_by = "(SELECT number FROM endpoints WHERE name = 'best')"
        await connection.execute(text(f"UPDATE calls SET story = '', endpoint_number = {ended_by}"))
    paid = await story(other_provider, failed_over)
    assert [each["endpoint"] for each in paid["lines"]] == ["globex/next"]
    assert (paid["attempts"], paid["earnings_usd"]) == ([], "0.0018")
    ended = await story(provider, failed_over)
    assert (ended["lines"], ended["earnings_usd"]) == ([], "0.00")


async def test_the_call_of_another_is_not_found(
    other_consumer: Person, provider: Person, consumer: Person, failed_over: UUID
) -> None:
    refused = [
        await other_consumer.http.get(f"/api/calls/{failed_over}"),
        await other_consumer.http.get(MADE_UP),
        await consumer.http.get(MADE_UP),
        await provider.http.get(MADE_UP),
        await consumer.http.get("/api/calls/nonsense"),
    ]
    assert [each.status_code for each in refused] == [404] * 5
    assert refused[0].json()["detail"] == refused[1].json()["detail"]


async def test_each_role_lists_what_is_its_own(
    broker: SmallBroker,
    operator: Person,
    consumer: Person,
    other_consumer: Person,
    provider: Person,
    other_provider: Person,
    failed_over: UUID,
) -> None:
    await operator.http.post("/api/accounts/rival/topups", json={"amount_usd": "5"})
    theirs = await sell(broker, other_consumer)

    async def ids(person: Person) -> list[str]:
        return [each["id"] for each in (await person.http.get("/api/calls")).json()["calls"]]

    assert await ids(operator) == [str(theirs), str(failed_over)]
    assert await ids(consumer) == [str(failed_over)]
    assert await ids(other_consumer) == [str(theirs)]
    assert await ids(provider) == [str(theirs)]
    assert await ids(other_provider) == [str(failed_over)]


async def test_calls_are_listed_page_by_page(
    broker: SmallBroker, consumer: Person, failed_over: UUID
) -> None:
    newer = await sell(broker, consumer)
    first = (await consumer.http.get("/api/calls?limit=1")).json()
    second = (await consumer.http.get(f"/api/calls?limit=1&cursor={first['cursor']}")).json()
    third = (await consumer.http.get(f"/api/calls?limit=1&cursor={second['cursor']}")).json()
    assert [each["id"] for page in (first, second) for each in page["calls"]] == [
        str(newer),
        str(failed_over),
    ]
    assert third == {"calls": [], "cursor": None}


async def test_calls_of_a_stretch_of_time_are_listed(
    broker: SmallBroker, consumer: Person, failed_over: UUID
) -> None:
    newer = await sell(broker, consumer)
    made = [str(failed_over), str(newer)]

    async def ids(**times: str) -> list[str]:
        answer = await consumer.http.get("/api/calls", params=times)
        return [each["id"] for each in answer.json()["calls"]]

    between = datetime.fromtimestamp((newer.int >> 80) / 1_000, UTC).isoformat()
    assert await ids(**{"from": between}) == made[1:]
    assert await ids(to=between) == made[:1]
    assert await ids(**{"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"}) == []
    for until in ("2020-01-01T00:00:00Z", "2019-12-31T00:00:00Z"):
        asked = {"from": "2020-01-01T00:00:00Z", "to": until}
        refused = await consumer.http.get("/api/calls", params=asked)
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (400, "to")


FILTERS = {
    "key_id": ("", "none"),
    "task_label": ("summarise", "translate"),
    "session_id": ("s1", "s2"),
    "labels": ("team=a", "team=b"),
    "task": ("chat", "infer"),
    "model": ("auto", "other"),
    "domain": (None, "law"),
    "code": ("", "providers_full"),
    "status": ("2xx", "5xx"),
    "endpoint": ("globex/next", "acme/best"),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_calls_are_listed_by_what_they_have_in_common(
    consumer: Person, operator: Person, failed_over: UUID, name: str
) -> None:
    right, wrong = FILTERS[name]
    if name == "key_id":
        right = consumer.key.split("_")[1]
    for person in (consumer, operator):
        for value, wanted in ((right, [str(failed_over)]), (wrong, [])):
            if value is not None:
                answer = await person.http.get("/api/calls", params={name: value})
                assert [each["id"] for each in answer.json()["calls"]] == wanted, (name, value)


async def test_filters_are_asked_together_and_a_malformed_one_is_told(
    consumer: Person, failed_over: UUID
) -> None:
    async def ids(**asked: str) -> list[str]:
        answer = await consumer.http.get("/api/calls", params=asked)
        return [each["id"] for each in answer.json()["calls"]]

    assert await ids(status="200", task_label="summarise") == [str(failed_over)]
    assert await ids(status="200", task_label="translate") == []
    assert await ids(labels="team=a,run=7") == []
    for asked in (
        {"status": "20"},
        {"status": "abc"},
        {"labels": "team"},
        {"labels": "=a"},
        {"labels": '{"team": 7}'},
        {"labels": '{"team": "a"'},
        {"labels": '{"team": "\\u0000"}'},
    ):
        refused = await consumer.http.get("/api/calls", params=asked)
        assert refused.status_code == 400
        assert refused.json()["fields"][0]["field"] == next(iter(asked))
    for unheard in ({"model": "\0"}, {"labels": "team=\0"}):
        assert (await consumer.http.get("/api/calls", params=unheard)).status_code == 400
    assert await ids(endpoint="globex/none") == []


async def test_a_provider_asks_by_endpoint_and_by_nothing_that_it_is_not_told(
    provider: Person, other_provider: Person, failed_over: UUID
) -> None:
    async def ids(person: Person) -> list[str]:
        answer = await person.http.get("/api/calls", params={"endpoint": "globex/next"})
        return [each["id"] for each in answer.json()["calls"]]

    assert await ids(other_provider) == [str(failed_over)]
    assert await ids(provider) == []
    refused = await other_provider.http.get("/api/calls", params={"labels": "team=a"})
    assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed")


async def test_a_call_under_way_is_told_from_its_hold(
    broker: SmallBroker, operator: Person, consumer: Person, other_consumer: Person
) -> None:
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "5"})
    call_id = await hold_only(broker, consumer)
    told = await story(consumer, call_id)
    assert (told["end"], told["hold_usd"], told["settled_at"]) == ("under_way", "0.005", None)
    assert (await other_consumer.http.get(f"/api/calls/{call_id}")).status_code == 404
