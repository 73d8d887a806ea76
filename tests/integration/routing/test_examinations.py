"""Whoever claims a domain is examined on its suite; what that came to is shown and is evidence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.answers.examination import Word
from broker.core.answers.suites import Suite, parse_suite
from broker.core.quality.evidence import Grade, Source
from broker.errors import NotFound, RequestMalformed, TooManyCalls
from broker.flows.access.authenticate import Caller
from broker.flows.quality.examine import Examiner, Hall
from broker.flows.quality.order_examination import order_examination, verdict_of
from broker.store.access.accounts import Account, Role
from broker.store.quality import evidence, examinations, suites
from broker.store.quality.examinations import Claim
from broker.store.tables import endpoints
from provider_sdk.testing.scripted import ScriptedProvider, embedding_vector
from tests.integration.catalog import offers
from tests.integration.catalog.offers import endpoint_offer, offer, open_account
from tests.integration.routing.hall import OPS, bring, found, list_law, offers_read, rows, sit


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
    assert {round(each.confidence or 0.0, 3) for each in pieces} == {0.905}


async def test_it_looks_like_any_other_call_and_its_receipts_are_no_surprise(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(3, 3))
    await sit(examiner)
    asked = provider.received[-1]
    assert set(asked.headers) >= {"x-request-id", "x-broker-attempt", "content-type"}
    assert set(asked.json) == {"model", "messages", "temperature", "max_tokens", "logprobs"}
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


async def test_an_endpoint_that_does_not_answer_is_tried_again_and_in_the_end_refuted(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, hall: Hall
) -> None:
    provider.script = msgspec.structs.replace(provider.script, status=500)
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(2, 2))
    count = select(func.count()).select_from(evidence.evidence)
    begun = datetime.now(UTC)
    for after_hours, examined in ((0.0, 1), (0.5, 1), (1.5, 2), (5.0, 2)):
        now = begun + timedelta(hours=after_hours)
        await sit(Examiner(replace(hall, clock=lambda now=now: now)))  # type: ignore[misc]
        told = await found(engine)
        assert [(each.status, each.score) for each in told] == [("failed", None)] * examined
        assert "0 of 2" in (told[0].problem or "")
        assert "2 x server_error 500" in (told[0].problem or "")
    async with engine.connect() as connection:
        assert await connection.scalar(count) == 0
    later = begun + timedelta(hours=9)
    await sit(Examiner(replace(hall, clock=lambda: later)))
    last = (await found(engine))[0]
    verdict = verdict_of(last)
    assert verdict is not None
    assert (last.status, last.score, verdict.on(last.claimed)) == ("done", 0.0, Word.REFUTED)


async def test_prompts_without_an_answer_count_against_the_claim(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    whole = provider.script
    refused = msgspec.structs.replace(whole, status=400)
    # All three are put at once and tried twice: one is refused both times.
    provider.script = msgspec.structs.replace(whole, sequence=(*[refused] * 4, whole, whole))
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(3, 3))
    await sit(examiner)
    [told] = await found(engine)
    assert (told.status, told.scored) == ("done", 3)
    assert told.score == pytest.approx(2 / 3)


async def test_a_providers_suite_is_put_to_its_own_endpoints_until_an_operator_adopts_it(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    globex = await open_account(engine, Role.PROVIDER, "globex")
    await list_law(engine, acme, provider.url, law=0.9)
    now = datetime.now(UTC)
    items, _ = parse_suite(rows(3, 0))
    async with engine.begin() as connection:
        await suites.put(connection, Suite("law", globex.id, items, "globex", now))
        with pytest.raises(RequestMalformed, match="no suite"):
            await order_examination(connection, OPS, "acme/law", None, now)
        endpoint = (await connection.execute(endpoints.select())).one()
        claim = Claim(endpoint.id, "law", now)
        [order] = await examinations.order(connection, [claim], "ops", now)
    await sit(examiner)
    [told] = await found(engine)
    assert (told.id, told.status, provider.calls) == (order.id, "failed", 0)
    await bring(engine, rows(3, 0))
    await sit(examiner)
    assert [each.status for each in await found(engine)] == ["done", "failed"]


async def test_an_order_is_kept_from_others_however_long_an_answer_takes(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, hall: Hall
) -> None:
    provider.script = msgspec.structs.replace(provider.script, ttft_ms=3_000)
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(2, 2))
    examiner = Examiner(hall, leased=timedelta(seconds=2))
    await examiner.look()
    sitting = asyncio.create_task(examiner.idle())
    while not sitting.done():
        now = datetime.now(UTC)
        async with engine.begin() as connection:
            assert await examinations.take(connection, 1, now, now) == []
        await asyncio.wait([sitting], timeout=0.05)
    assert [each.status for each in await found(engine)] == ["done"]


async def test_what_a_provider_orders_again_and_again_weighs_less_and_has_an_end(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(1, 1))
    await sit(examiner)
    own = Caller(acme.id, acme.name, acme.role)
    for _ in range(5):
        async with engine.begin() as connection:
            await order_examination(connection, own, "acme/law", "law", datetime.now(UTC))
        await sit(examiner)
    async with engine.begin() as connection:
        with pytest.raises(TooManyCalls):
            await order_examination(connection, own, "acme/law", "law", datetime.now(UTC))
        assert await order_examination(connection, OPS, "acme/law", "law", datetime.now(UTC))
        pieces = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
    told = [each.weight for each in pieces]
    assert told == pytest.approx([1.0, 1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    first = (await found(engine))[-1].id
    assert {each.run_id for each in pieces} == {first}, "they replace nothing"
    await sit(examiner)
    async with engine.connect() as connection:
        last = (await evidence.since(connection, evidence.START, 100))[-1].piece
    assert last.run_id == (await found(engine))[0].id != first


async def test_what_a_dead_worker_left_is_begun_anew(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    await bring(engine, rows(3, 2))
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        claims = await examinations.unexamined(connection, now)
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
    [told] = await found(engine)
    assert (told.status, "2 x the judge is not" in (told.problem or "")) == ("failed", True)


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


async def test_an_endpoint_that_embeds_is_put_what_is_to_be_closer(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    offered = offer(
        url=provider.url,
        endpoints=[endpoint_offer(name="vectors", tasks=["embedding"], domains={"law": 0.9})],
    )
    registered = await offers.register(engine, acme, offered)
    async with engine.begin() as connection:
        await offers.enlist(connection, registered)
    await bring(engine, rows(3, 3))
    await sit(examiner)
    assert await found(engine) == [], "none of these rows is for vectors"
    lines = []
    for number in range(8):
        texts = [f"section {number}", f"paragraph {number}", f"recipe {number}"]
        prompt, one, other = (np.array(embedding_vector(each)) for each in texts)
        nearer = texts[1:] if float(prompt @ one) > float(prompt @ other) else texts[:0:-1]
        if number == 7:
            nearer = nearer[::-1]
        lines.append({"prompt": texts[0], "metric": "closer", "reference": nearer})
    await bring(engine, b"\n".join([*map(msgspec.json.encode, lines), rows(2, 2)]))
    await sit(examiner)
    told = (await found(engine))[0]
    assert (told.status, told.asked, told.score) == ("done", 8, 7 / 8)
    assert {each.path for each in provider.work_received} == {"/v1/embeddings"}


async def test_an_endpoint_that_takes_tensors_is_put_tensors(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    tensors = endpoint_offer(
        name="net", tasks=["infer"], domains={"law": 0.9}, price=offers.CALL_BAND
    )
    offered = offer(url=provider.url, kind="kserve", endpoints=[tensors])
    registered = await offers.register(engine, acme, offered)
    async with engine.begin() as connection:
        await offers.enlist(connection, registered)
    await bring(engine, rows(3, 3))
    await sit(examiner)
    assert await found(engine) == [], "none of these rows is of tensors"
    # The provider echoes what it gets.
    lines = [
        {
            "inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1], "data": [number]}],
            "output": "OUTPUT0",
            "metric": "numeric",
            "reference": number or 99,
        }
        for number in range(8)
    ]
    await bring(engine, b"\n".join([*map(msgspec.json.encode, lines), rows(2, 2)]))
    await sit(examiner)
    [told] = await found(engine)
    assert (told.status, told.asked, told.score) == ("done", 8, 7 / 8)
    assert {each.path.rpartition("/")[2] for each in provider.work_received} == {"infer"}
    async with engine.connect() as connection:
        pieces = [each.piece for each in await evidence.since(connection, evidence.START, 100)]
    assert [each.vector for each in pieces] == [None] * 8, "of tensors nothing is encoded"


async def test_a_further_examination_reads_of_the_catalog_what_has_changed_alone(
    engine: AsyncEngine, acme: Account, provider: ScriptedProvider, examiner: Examiner
) -> None:
    await list_law(engine, acme, provider.url, law=0.9)
    read: list[int] = []
    for count in (3, 4, 5):
        await bring(engine, rows(count, count))
        with offers_read(engine) as statements:
            await sit(examiner)
        read.append(len(statements))
    assert [each.status for each in await found(engine)] == ["done"] * 3
    assert read == [1, 0, 0]
