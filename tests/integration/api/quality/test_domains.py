"""Domains over HTTP: who teaches them, who may change them, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.quality.syllabus import DOMAINS_MAX, DOMAINS_OF_ONE_MAX, Domain
from broker.flows.quality.teach_domain import forget_domain, teach_domain
from broker.store.quality.domains import load_domains, put
from tests.integration.api.conftest import Person
from tests.integration.routing.examples import COOKING, LAW
from tests.integration.routing.hall import OPS


async def test_operators_and_providers_teach_and_everybody_sees(
    operator: Person, provider: Person, consumer: Person
) -> None:
    taught = await operator.http.put("/api/domains/law", json={"examples": LAW})
    assert taught.status_code == 200, taught.text
    assert taught.json()["examples"] == len(LAW)
    assert (await provider.http.put("/api/domains/food", json={"examples": COOKING})).is_success
    shown = (await consumer.http.get("/api/domains")).json()["domains"]
    assert [(each["name"], each["author"]) for each in shown] == [
        ("food", provider.account.name),
        ("law", operator.account.name),
    ]
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    assert [each["action"] for each in entries[:2]] == ["teach_domain", "teach_domain"]
    assert entries[0]["detail"] == {"examples": len(COOKING)}


async def test_a_provider_changes_its_own_domains_only(
    operator: Person, provider: Person, other_provider: Person
) -> None:
    await provider.http.put("/api/domains/food", json={"examples": COOKING})
    other = await other_provider.http.put("/api/domains/food", json={"examples": LAW})
    assert other.status_code == 403
    assert (await other_provider.http.delete("/api/domains/food")).status_code == 404
    anew = await operator.http.put("/api/domains/food", json={"examples": COOKING[:20]})
    assert anew.json()["examples"] == 20
    assert (await provider.http.delete("/api/domains/food")).status_code == 204
    assert (await operator.http.get("/api/domains")).json()["domains"] == []


async def test_too_few_and_contradictory_examples_are_refused(operator: Person) -> None:
    few = await operator.http.put("/api/domains/law", json={"examples": LAW[:19]})
    assert (few.status_code, few.json()["code"]) == (400, "examples_too_few")
    await operator.http.put("/api/domains/law", json={"examples": LAW})
    both = await operator.http.put("/api/domains/food", json={"examples": [*COOKING, LAW[3]]})
    assert (both.status_code, both.json()["code"]) == (409, "examples_contradict")
    shouted = [*COOKING, f"  {LAW[3].upper()}".replace(" ", "  ")]
    both = await operator.http.put("/api/domains/food", json={"examples": shouted})
    assert (both.status_code, both.json()["code"]) == (409, "examples_contradict")
    assert "'law'" in both.json()["detail"]


@pytest.mark.parametrize(
    ("name", "examples", "status"),
    [
        ("law", b'["half of \\ud83d"]', 400),
        ("law", b'["a NUL \\u0000"]', 400),
        ("law", b'[" ", "", "\\n"]', 400),
        ("law", b"[1, 2]", 400),
        ("law", b'"May I?"', 400),
        ("law", b"[" + b",".join(b'"What of %d?"' % at for at in range(10_000)) + b"]", 400),
        ("law", b'["' + b"x" * 900_000 + b'"]', 400),
        ("law", b'["' + b"x" * 2_000_000 + b'"]', 413),
        ("law\n", b"[]", 400),
        ("law\0", b"[]", 400),
        (" law", b"[]", 400),
        ("x" * 201, b"[]", 400),
    ],
)
async def test_what_cannot_teach_is_the_callers_fault(
    operator: Person, name: str, examples: bytes, status: int
) -> None:
    told = b'{"examples": %b}' % examples
    header = {"content-type": "application/json"}
    answer = await operator.http.put(f"/api/domains/{quote(name)}", content=told, headers=header)
    assert answer.status_code == status, answer.text
    assert len(answer.text) < 1_000
    assert (await operator.http.get("/api/domains")).json()["domains"] == []


async def test_of_two_domains_taught_the_same_at_once_one_is_refused(
    operator: Person, provider: Person
) -> None:
    async def teach(person: Person, name: str) -> int:
        answer = await person.http.put(f"/api/domains/{name}", json={"examples": LAW})
        return answer.status_code

    told = await asyncio.gather(*(teach(each, "law") for each in (operator, provider)))
    assert sorted(told) in ([200, 200], [200, 403])
    names = [f"law {at}" for at in range(4)]
    told = await asyncio.gather(*(teach(operator, each) for each in names))
    assert told == [409] * 4
    assert (await operator.http.delete("/api/domains/law")).status_code == 204
    told = await asyncio.gather(*(teach(operator, each) for each in names))
    assert sorted(told) == [200, 409, 409, 409]


async def test_only_what_was_taught_since_is_read_again(engine: AsyncEngine) -> None:
    """Whichever clock it was taught by, and also where that stood still or went back."""
    now = datetime(2026, 3, 1, tzinfo=UTC)

    async def known(*before: Any) -> tuple[Any, ...]:
        async with engine.connect() as connection:
            return await load_domains(connection, before)

    async with engine.begin() as connection:
        await teach_domain(connection, OPS, "law", LAW, now)
        await teach_domain(connection, OPS, "food", COOKING, now)
    food, law = await known()
    assert all(each is old for each, old in zip(await known(food, law), (food, law), strict=True))
    async with engine.begin() as connection:
        await teach_domain(connection, OPS, "law", LAW[:20], now.replace(year=2025))
    same, changed = await known(food, law)
    assert same is food
    assert (changed.examples, changed.changed_at > law.changed_at) == (tuple(LAW[:20]), True)
    async with engine.begin() as connection:
        await forget_domain(connection, OPS, "food", now)
    assert await known(food, changed) == (changed,)


async def test_no_provider_takes_the_room_of_all_others(
    engine: AsyncEngine, operator: Person, provider: Person, other_provider: Person
) -> None:
    async def fill(numbers: range, owner_id: UUID | None) -> None:
        async with engine.begin() as connection:
            for at in numbers:
                examples = tuple(f"How is {at} {each}?" for each in range(20))
                taught = Domain(f"d{at}", owner_id, examples, "test", datetime.now(UTC))
                await put(connection, taught)

    await fill(range(DOMAINS_OF_ONE_MAX), provider.account.id)
    answer = await provider.http.put("/api/domains/law", json={"examples": LAW})
    assert (answer.status_code, answer.json()["code"]) == (409, "domains_too_many")
    assert (await provider.http.put("/api/domains/d1", json={"examples": LAW})).is_success
    assert (
        await other_provider.http.put("/api/domains/food", json={"examples": COOKING})
    ).is_success
    await fill(range(DOMAINS_OF_ONE_MAX, DOMAINS_MAX - 1), None)
    tax = [f"When is tax number {at} due?" for at in range(20)]
    answer = await operator.http.put("/api/domains/tax", json={"examples": tax})
    assert (answer.status_code, answer.json()["code"]) == (409, "domains_too_many")
