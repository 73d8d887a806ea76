"""Feedback over HTTP: it becomes evidence of who answered; whose call it is may say it alone."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from broker.core.evidence import Grade, Piece, Source
from broker.errors import RequestMalformed
from broker.flows.evaluate_policy import evaluate_policy
from broker.flows.give_feedback import FREE_PER_DAY, weight_of
from broker.store import evidence
from broker.store.judged_calls import judged_calls
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.market import list_endpoints, publish
from tests.integration.api.sales import hold_only, sell
from tests.integration.catalog.offers import endpoint_offer


@pytest.fixture
async def sold(broker: SmallBroker, operator: Person, consumer: Person, provider: Person) -> UUID:
    """A call that acme answered."""
    await list_endpoints(broker, provider.account, endpoint_offer(name="best", quality=0.9))
    await publish(broker, 7, 1_000_000)
    await operator.http.post("/api/accounts/shop/topups", json={"amount_usd": "5"})
    return await sell(broker, consumer)


async def pieces(broker: SmallBroker) -> list[Piece]:
    async with broker.engine.connect() as connection:
        return [each.piece for each in await evidence.since(connection, evidence.START, 1_000)]


async def test_a_score_becomes_evidence_of_the_endpoint_that_answered(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    given = {"score": 0.75, "label": "dated", "correction": "It is thirty days now."}
    answer = await consumer.http.post(f"/api/calls/{sold}/feedback", json=given)
    assert answer.status_code == 201, answer.text
    assert answer.json() == {
        "call_id": str(sold),
        "endpoint": "acme/best",
        "domain": None,
        "score": 0.75,
        "grade": "graded",
        "weight": 1.0,
    }
    again = await consumer.http.post(f"/api/calls/{sold}/feedback", json={"correction": "No."})
    assert (again.json()["score"], again.json()["grade"]) == (0.0, "graded")
    first, last = await pieces(broker)
    assert (first.source, first.grade, first.score) == (Source.FEEDBACK, Grade.GRADED, 0.75)
    assert (first.call_id, last.call_id) == (sold, sold)
    assert first.account_id == consumer.account.id
    assert first.endpoint_id == broker.market.endpoint(broker.market.by_name["acme/best"]).id


async def test_the_ends_of_a_scale_are_of_the_scale_unless_they_are_called_right_and_wrong(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    path = f"/api/calls/{sold}/feedback"
    stars = [{"score": each / 4} for each in range(5)]
    told = [{"score": 0, "grade": "binary"}, {"score": 1, "grade": "binary"}]
    for given in [*stars, *told, {"correction": "No.", "grade": "binary"}]:
        answer = await consumer.http.post(path, json=given)
        assert answer.status_code == 201, answer.text
    grades = [each.grade for each in await pieces(broker)]
    assert grades == [Grade.GRADED] * 5 + [Grade.BINARY] * 3


async def test_anothers_call_is_not_there_and_one_without_an_answer_has_none_to_judge(
    broker: SmallBroker, consumer: Person, other_consumer: Person, sold: UUID
) -> None:
    path = f"/api/calls/{sold}/feedback"
    other = await other_consumer.http.post(path, json={"score": 1})
    assert (other.status_code, other.json()["code"]) == (404, "not_found")
    under_way = await hold_only(broker, consumer)
    early = await consumer.http.post(f"/api/calls/{under_way}/feedback", json={"score": 1})
    assert (early.status_code, early.json()["code"]) == (409, "not_answered")
    assert await pieces(broker) == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"score": 1.01}, "score_out_of_range"),
        ({"score": -3}, "score_out_of_range"),
        ({"score": 0.5, "grade": "binary"}, "score_out_of_range"),
        ({}, "request_malformed"),
        ({"label": "bad"}, "request_malformed"),
    ],
    ids=str,
)
async def test_a_score_that_is_none_is_refused_by_name(
    consumer: Person, given: dict[str, object], code: str
) -> None:
    made_up = "/api/calls/00000000-0000-7000-8000-000000000000/feedback"
    answer = await consumer.http.post(made_up, json=given)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


def test_a_flood_weighs_less_and_less() -> None:
    weights = [weight_of(said) for said in range(10_000)]
    assert set(weights[:FREE_PER_DAY]) == {1.0}
    assert weights == sorted(weights, reverse=True)
    assert FREE_PER_DAY < sum(weights) < 5 * FREE_PER_DAY


async def test_what_an_account_says_in_a_day_is_counted(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    path = f"/api/calls/{sold}/feedback"
    await consumer.http.post(path, json={"score": 1})
    [piece] = await pieces(broker)
    async with broker.engine.begin() as connection:
        await evidence.record(connection, [piece] * (2 * FREE_PER_DAY - 2))
    last = await consumer.http.post(path, json={"score": 0})
    assert last.json()["weight"] == 0.5


async def test_calls_that_were_judged_are_read_with_the_last_that_was_said(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    for score in (0.5, 1):
        await consumer.http.post(f"/api/calls/{sold}/feedback", json={"score": score})
    day = timedelta(days=1)
    async with broker.engine.connect() as connection:
        [judged] = await judged_calls(connection, broker.clock() - day)
        assert await judged_calls(connection, broker.clock() + day) == []
    assert judged.score == 1.0
    assert judged.endpoint_number == broker.market.by_name["acme/best"]
    with pytest.raises(RequestMalformed, match="0 calls that explored"):
        await evaluate_policy(broker.engine, "quality", broker.clock() - day)
    with pytest.raises(RequestMalformed, match="no policy"):
        await evaluate_policy(broker.engine, "luck", broker.clock() - day)
