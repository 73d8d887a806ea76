"""Whoever claims a domain is examined on its suite; what that came to is shown and is evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.evidence import Grade, Source
from broker.core.examination import Word
from broker.errors import NotFound
from broker.flows.authenticate import Caller
from broker.flows.examine import Examiner
from broker.flows.order_examination import order_examination, verdict_of
from broker.store import evidence, examinations
from broker.store.accounts import Account, Role
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.catalog import offers
from tests.integration.catalog.offers import endpoint_offer, offer, open_account
from tests.integration.routing.hall import OPS, bring, found, list_law, rows, sit


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
