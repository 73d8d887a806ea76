"""Domains over HTTP: who teaches them, who may change them, and what is refused."""

from __future__ import annotations

from tests.integration.api.conftest import Person
from tests.integration.routing.examples import COOKING, LAW


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
