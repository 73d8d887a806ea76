"""Whoever claims a domain is examined on its suite; what that came to is shown and is evidence."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.evidence import Grade, Source
from broker.core.examination import Word
from broker.errors import NotFound
from broker.flows.ask_endpoint import Asker
from broker.flows.authenticate import Caller
from broker.flows.examine import Examiner, Hall
from broker.flows.import_suite import import_suite
from broker.flows.mark_answers import Marker
from broker.flows.order_examination import order_examination, read_examinations, verdict_of
from broker.store import evidence, examinations
from broker.store.accounts import Account, Role
from broker.store.examinations import Examination
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import UpstreamClient
from provider_sdk.testing.scripted import Script, ScriptedProvider, answer_text
from tests.integration.catalog import offers
from tests.integration.catalog.offers import SEALER, endpoint_offer, offer, open_account

OPS = Caller(UUID(int=0), "ops", Role.OPERATOR)
TOKENS = 4


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(Script(models=("tiny-law",), output_tokens=TOKENS)) as provider:
        yield provider


@pytest.fixture
async def acme(engine: AsyncEngine) -> Account:
    return await open_account(engine, Role.PROVIDER, "acme")


@pytest.fixture
async def examiner(engine: AsyncEngine) -> AsyncIterator[Examiner]:
    policy = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"),))
    upstream = UpstreamClient(policy)
    yield Examiner(Hall(engine, SEALER, Marker(Asker(upstream)), lambda: datetime.now(UTC)))
    await upstream.aclose()


def rows(count: int, right: int, **more: Any) -> bytes:
    """A suite of which the scripted provider answers the first `right` rows as it should."""
    told = []
    for number in range(count):
        prompt = f"What does section {number} of the contract say?"
        reference = answer_text(f"user: {prompt}", TOKENS) if number < right else "something else"
        told.append({"prompt": prompt, "metric": "exact", "reference": reference, **more})
    return b"\n".join(map(msgspec.json.encode, told))


async def list_law(engine: AsyncEngine, acme: Account, url: str, **claims: float) -> None:
    offered = offer(url=url, endpoints=[endpoint_offer(domains=claims)])
    registered = await offers.register(engine, acme, offered)
    async with engine.begin() as connection:
        await offers.enlist(connection, registered)


async def bring(engine: AsyncEngine, lines: bytes, author: Caller = OPS) -> None:
    async with engine.begin() as connection:
        await import_suite(connection, author, "law", (lines, None), datetime.now(UTC))


async def found(engine: AsyncEngine, reader: Caller = OPS) -> list[Examination]:
    async with engine.connect() as connection:
        return [*await read_examinations(connection, reader, None, 10)]


async def sit(examiner: Examiner) -> None:
    await examiner.look()
    await examiner.idle()


async def test_a_claim_is_examined_once_and_refuted_where_answers_are_bad(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9, cooking=0.8)
    await bring(engine, rows(60, 30))
    await sit(examiner)
    await sit(examiner)
    [told] = await found(engine)
    assert (told.status, told.asked, told.answered, told.scored) == ("done", 40, 40, 40)
    verdict = verdict_of(told)
    assert verdict is not None
    assert 0.2 < verdict.low < verdict.score < verdict.high < 0.8
    assert verdict.on(told.claimed) is Word.REFUTED
    assert provider.calls == 40
    async with engine.connect() as connection:
        pieces = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
    assert {(each.source, each.grade, each.domain, each.weight) for each in pieces} == {
        (Source.EVAL, Grade.BINARY, "law", 1.0)
    }
    assert sum(each.score for each in pieces) / 40 == pytest.approx(verdict.score)
    assert all(each.vector and each.call_id is None for each in pieces)


async def test_it_looks_like_any_other_call_and_its_receipts_are_no_surprise(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(3, 3))
    await sit(examiner)
    asked = provider.received[-1]
    assert set(asked.headers) >= {"x-request-id", "x-broker-attempt", "content-type"}
    assert set(asked.json) == {"model", "messages", "temperature", "max_tokens"}
    ids = [UUID(each.headers["x-request-id"]) for each in provider.work_received]
    async with engine.connect() as connection:
        assert await examinations.without_test_calls(connection, [*ids, acme.id]) == [acme.id]
        calls = await connection.scalar(text("SELECT count(*) FROM calls"))
    assert calls == 0
    [told] = await found(engine)
    assert (told.score, verdict_of(told).on(0.9)) == (1.0, Word.UPHELD)  # type: ignore[union-attr]


async def test_a_suite_that_changed_is_put_anew_and_one_that_did_not_is_not(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    for lines, examined in ((rows(3, 3), 1), (rows(3, 3), 1), (rows(4, 3), 2)):
        await bring(engine, lines)
        await sit(examiner)
        assert len(await found(engine)) == examined
    async with engine.begin() as connection:
        ordered = await order_examination(connection, OPS, "acme/law", None, datetime.now(UTC))
        again = await order_examination(connection, OPS, "acme/law", None, datetime.now(UTC))
        assert (len(ordered), again) == (1, [])
        other = Caller(ordered[0].id, "globex", Role.PROVIDER)
        with pytest.raises(NotFound):
            await order_examination(connection, other, "acme/law", None, datetime.now(UTC))
    await sit(examiner)
    assert [each.status for each in await found(engine)] == ["done"] * 3


async def test_an_endpoint_that_does_not_answer_is_not_called_bad(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    provider.script = msgspec.structs.replace(provider.script, status=500)
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(4, 4))
    await sit(examiner)
    [told] = await found(engine)
    assert (told.status, told.answered, told.score) == ("failed", 4, None)
    assert "0 of 4" in (told.problem or "")
    async with engine.connect() as connection:
        count = await connection.scalar(select(func.count()).select_from(evidence.evidence))
    assert count == 0


async def test_what_a_dead_worker_left_is_begun_anew(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(3, 2))
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        claims = await examinations.unexamined(connection)
        await examinations.order(connection, claims, "registration", now)
        [order] = await examinations.take(connection, 1, now, now + timedelta(minutes=5))
        await examinations.begin(connection, order.id, 3, now)
        await examinations.proceed(connection, order.id, 2, now - timedelta(seconds=1))
    await sit(examiner)
    [told] = await found(engine)
    assert (told.id, told.status, told.scored) == (order.id, "done", 3)


async def test_a_judge_judges_and_one_that_is_away_gives_no_score(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(2, 2, metric="judge", judge="acme/away"))
    await sit(examiner)
    assert [each.status for each in await found(engine)] == ["failed"]


async def test_a_hidden_endpoint_is_examined_and_shown_to_who_may_see_it(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    shop, rival = [await open_account(engine, Role.CONSUMER, name) for name in ("shop", "rival")]
    hidden = endpoint_offer(domains={"law": 0.9}, visible_to=["shop"])
    registered = await offers.register(engine, acme, offer(url=provider.url, endpoints=[hidden]))
    async with engine.begin() as connection:
        await offers.enlist(connection, registered)
    await bring(engine, rows(2, 2))
    await sit(examiner)
    seen = {
        account.name: len(await found(engine, Caller(account.id, account.name, account.role)))
        for account in (acme, shop, rival)
    }
    assert seen == {"acme": 1, "shop": 1, "rival": 0}
