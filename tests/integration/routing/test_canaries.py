"""Canaries go where there is traffic, look like it, and stand beside what traffic says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import msgspec
import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.quality.evidence import Grade, Piece, Source
from broker.flows.calls.inspect_answer import PASSED_KEPT
from broker.flows.quality.examine import Examiner, Hall
from broker.flows.quality.read_gaps import read_gaps
from broker.flows.quality.send_canaries import Aviary
from broker.store.access.accounts import Account, Role
from broker.store.quality import evidence, examinations
from broker.store.tables import calls, endpoints
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.catalog.offers import open_account
from tests.integration.routing.hall import bring, found, list_law, offers_read, rows, sit


async def serve_a_call(engine: AsyncEngine) -> UUID:
    """Write down that a consumer's call was served; return the endpoint's id."""
    shop = await open_account(engine, Role.CONSUMER, "shop")
    async with engine.begin() as connection:
        endpoint = (await connection.execute(endpoints.select())).one()
        await connection.execute(
            insert(calls).values(
                id=uuid7(),
                created_at=datetime.now(UTC),
                account_id=shop.id,
                key_id="k",
                task="chat",
                model="auto",
                stream=False,
                status=200,
                code="served",
                endpoint_number=endpoint.number,
                price_version=1,
                hold_nanos=0,
                charge_nanos=0,
                tokens_in=1,
                tokens_out=1,
                duration_ms=1.0,
                story=b"",
            )
        )
    found: UUID = endpoint.id
    return found


async def test_canaries_go_where_there_is_traffic_and_show_a_gap(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner, hall: Hall
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(12, 12))
    await sit(examiner)
    aviary = Aviary(hall, 60.0, Random(1))
    assert await aviary.look(0.0) == 0, "alone, a canary would be known"
    endpoint_id = await serve_a_call(engine)
    for _ in range(12):
        assert await aviary.look(0.0) == 1
        await aviary.idle()
    assert await Aviary(hall, 0.0, Random(1)).look(0.0) == 0
    asked = provider.work_received[-1]
    ids = [UUID(asked.headers["x-request-id"])]
    now = datetime.now(UTC)
    bad = Piece(now, endpoint_id, Source.FEEDBACK, Grade.BINARY, 0.0, "law")
    async with engine.begin() as connection:
        assert await examinations.without_test_calls(connection, ids) == []
        pieces = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
        assert [each.source for each in pieces].count(Source.EVAL) == 24
        await evidence.record(connection, [bad] * 12)
        charged = await connection.scalar(text("SELECT count(*) FROM settlements"))
    assert charged == 0
    [(beside, gap)] = await read_gaps(engine, datetime.now(UTC))
    assert (beside.endpoint, beside.canaries.mean, beside.traffic.mean) == ("acme/law", 1.0, 0.0)
    assert gap.shows
    assert gap.apart == pytest.approx(1.0)


async def test_form_and_floods_make_no_gap_where_feedback_is_as_good_as_canaries(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner, hall: Hall
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(12, 12))
    await sit(examiner)
    endpoint_id = await serve_a_call(engine)
    aviary = Aviary(hall, 60.0, Random(1))
    for _ in range(12):
        await aviary.look(0.0)
        await aviary.idle()
    good = Piece(datetime.now(UTC), endpoint_id, Source.FEEDBACK, Grade.BINARY, 1.0, "law")
    flaw = replace(good, source=Source.CHECK, score=0.0, weight=PASSED_KEPT)
    flood = replace(good, score=0.0, weight=0.001)
    changed_mind = [replace(good, score=score, call_id=uuid7()) for score in (0.0, 1.0)]
    changed_mind = [replace(each, call_id=changed_mind[0].call_id) for each in changed_mind]
    async with engine.begin() as connection:
        await evidence.record(connection, [good] * 19 + changed_mind)
        await evidence.record(connection, [flaw] * 60 + [flood] * 100)
    [(beside, gap)] = await read_gaps(engine, datetime.now(UTC))
    assert beside.traffic.count == pytest.approx(20.1)
    assert gap.apart == pytest.approx(0.1 / 20.1)
    assert not gap.shows


async def test_who_fails_the_examination_gets_canaries_all_the_same(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner, hall: Hall
) -> None:
    provider.script = msgspec.structs.replace(provider.script, status=500)
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(1, 1))
    await sit(examiner)
    assert [each.status for each in await found(engine)] == ["failed"]
    await serve_a_call(engine)
    aviary = Aviary(hall, 60.0, Random(1))
    assert await aviary.look(0.0) == 1
    await aviary.idle()


async def test_a_canary_without_an_answer_is_no_score(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner, hall: Hall
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(2, 2))
    await sit(examiner)
    await serve_a_call(engine)
    provider.kill()
    aviary = Aviary(hall, 60.0, Random(1))
    await aviary.look(0.0)
    await aviary.idle()
    [(beside, gap)] = await read_gaps(engine, datetime.now(UTC))
    assert (beside.canaries.count, gap.apart) == (0, None)


async def test_canaries_and_examinations_read_of_the_catalog_what_has_changed_once_for_all(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner, hall: Hall
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(12, 12))
    with offers_read(engine) as statements:
        await sit(examiner)
    read = [len(statements)]
    await serve_a_call(engine)
    aviary = Aviary(hall, 60.0, Random(1))
    for _ in range(2):
        with offers_read(engine) as statements:
            assert await aviary.look(0.0) == 1
            await aviary.idle()
        read.append(len(statements))
    assert read == [1, 0, 0]
