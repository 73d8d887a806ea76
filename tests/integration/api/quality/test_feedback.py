"""Feedback over HTTP: it becomes evidence of who answered; whose call it is may say it alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from msgspec import structs
from sqlalchemy import text

from broker.core.catalog import Task
from broker.core.decision import undecided
from broker.core.key_terms import KeyTerms
from broker.core.ledger import CallRecord
from broker.core.quality.evidence import Grade, Piece, Source
from broker.core.requirements import Requirements
from broker.core.story import encode
from broker.flows.access.authenticate import Caller
from broker.flows.calls.forget_answer import forget_expired
from broker.flows.quality.give_feedback import FREE_PER_DAY, WORDS_PER_DAY, weight_of
from broker.flows.quality.keep_words import may_keep
from broker.store.calls.log import find_call
from broker.store.database import create_pool
from broker.store.quality import evidence
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
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
        "words_kept": False,
    }
    kept = await consumer.http.get(f"/api/calls/{sold}/feedback")
    assert kept.json() == {"label": None, "correction": None}
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
    weights = [weight_of(others) for others in range(WORDS_PER_DAY)]
    assert set(weights[:FREE_PER_DAY]) == {1.0}
    assert weights == sorted(weights, reverse=True)
    assert FREE_PER_DAY < sum(weights) < 5 * FREE_PER_DAY


async def test_of_many_words_on_one_call_the_others_cost_later_words_nothing(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    path = f"/api/calls/{sold}/feedback"
    await consumer.http.post(path, json={"score": 1})
    [piece] = await pieces(broker)
    of_one = [replace(piece, call_id=sold)] * (2 * FREE_PER_DAY)
    await record(broker, of_one)
    assert (await consumer.http.post(path, json={"score": 0})).json()["weight"] == 1.0
    await record(broker, [replace(piece, call_id=uuid4()) for _ in range(2 * FREE_PER_DAY)])
    last = await consumer.http.post(path, json={"score": 0})
    assert last.json()["weight"] == 1.0, "a call's first word had that weight"


async def test_words_on_many_calls_weigh_less_and_after_so_many_none_is_taken(
    broker: SmallBroker, consumer: Person, sold: UUID
) -> None:
    path = f"/api/calls/{sold}/feedback"
    await consumer.http.post(path, json={"score": 1})
    [piece] = await pieces(broker)
    other = await sell(broker, consumer)
    calls = [uuid4() for _ in range(2 * FREE_PER_DAY - 2)]
    await record(broker, [replace(piece, call_id=each) for each in calls])
    told = await consumer.http.post(f"/api/calls/{other}/feedback", json={"score": 0})
    assert told.json()["weight"] == 0.5
    await record(broker, [piece] * (WORDS_PER_DAY - len(calls) - 2))
    refused = await consumer.http.post(path, json={"score": 0})
    assert (refused.status_code, refused.json()["code"]) == (429, "feedback_exceeded")
    assert "retry-after" in refused.headers


async def record(broker: SmallBroker, given: list[Piece]) -> None:
    async with broker.engine.begin() as connection:
        await evidence.record(connection, given)


async def test_words_are_kept_for_keys_that_opted_in_sealed_and_until_they_expire(
    broker: SmallBroker, consumer: Person, operator: Person, provider: Person, sold: UUID
) -> None:
    terms = {"content_kept": "full"}
    key = (await consumer.http.post("/api/accounts/shop/keys", json=terms)).json()["key"]
    own = {"authorization": f"Bearer {key}"}
    path = f"/api/calls/{sold}/feedback"
    written = {"score": 0.1, "label": "dated", "correction": "Thirty days by now."}
    first = await consumer.http.post(path, json=written, headers=own)
    assert first.json()["words_kept"] is True, first.text
    await consumer.http.post(path, json={"score": 0.2, "label": "old"}, headers=own)
    without = await consumer.http.post(path, json={"score": 0.3}, headers=own)
    assert without.json()["words_kept"] is False
    kept = await consumer.http.get(path)
    assert kept.json() == {"label": "old", "correction": None}, "the last that was written"
    async with broker.engine.connect() as connection:
        sealed = await connection.scalar(text("SELECT sealed FROM stored_words"))
    assert b"old" not in sealed
    assert (await provider.http.get(path)).status_code == 403
    assert (await consumer.http.get(f"/api/calls/{uuid4()}/feedback")).status_code == 404
    async with broker.engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE stored_words SET created_at = now() - interval '31 days',"
                " expires_at = now() - interval '1 day'"
            )
        )
    gone = {"label": None, "correction": None}
    assert (await consumer.http.get(path)).json() == gone
    pool = await create_pool(broker.settings.database_url)
    assert await forget_expired(pool, datetime.now(UTC)) == 1
    await pool.close()
    await consumer.http.post(path, json=written, headers=own)
    assert (await consumer.http.delete(f"/api/calls/{sold}/content")).status_code == 204
    assert (await consumer.http.get(path)).json() == gone


async def test_words_on_a_call_that_is_to_leave_no_trace_are_not_kept(
    broker: SmallBroker, consumer: Person, operator: Person, sold: UUID
) -> None:
    call = await find_call(broker.engine, sold)
    assert isinstance(call, CallRecord)
    caller = Caller(
        consumer.account.id, "shop", consumer.account.role, terms=KeyTerms(content_kept="full")
    )
    assert may_keep(caller, call)
    wanted = Requirements(consumer.account.id, Task.CHAT, "auto", 1, 1, 1, allow_retention=False)
    quiet = encode(wanted, undecided(1), [], "served", 0.0)
    assert not may_keep(caller, structs.replace(call, story=quiet))
    assert not may_keep(replace(caller, terms=KeyTerms(content_kept="replay")), call)
    assert not may_keep(replace(caller, terms=None), call)
    assert not may_keep(caller, structs.replace(call, story=b"")), "it may have forbidden it"
