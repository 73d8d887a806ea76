"""The search for calls: what it finds, and for whom."""

from __future__ import annotations

import html
import json
import re
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from broker.core.outcome import Fault
from tests.integration.web.bourse import Bourse, failed, wanted
from tests.integration.web.conftest import Enter, People
from web.search import FIELDS, MORE, SHOWN

PIECE = {"hx-request": "true"}


def found(page: str) -> list[UUID]:
    """The calls of a page, in their order."""
    return [UUID(each) for each in re.findall(r'id="call-([0-9a-f-]{36})"', page)]


def older(page: str) -> str | None:
    """Where the page says that older calls are."""
    told = re.search(r'hx-get="(/console/calls\?[^"]*)"', page)
    return html.unescape(told[1]) if told else None


LABELS = {"team": "a", "run": "7", "topics": "rent, repairs"}


@pytest.fixture
async def two(bourse: Bourse, people: People) -> tuple[UUID, UUID]:
    """A call that failed at borealis two hours ago, and one that acme served after it."""
    now = bourse.clock()
    asked = wanted(people.clinic, model="borealis/law", domain="law")
    outcomes = [failed(Fault.SERVER_ERROR, 500)]
    lost = await bourse.call(people.clinic, asked, outcomes, at=now - timedelta(hours=2))
    asked = wanted(people.clinic, model="acme/general")
    served = await bourse.call(people.clinic, asked, at=now - timedelta(hours=1))
    async with bourse.engine.begin() as connection:
        told = text("UPDATE calls SET labels = CAST(:labels AS jsonb) WHERE id = :id")
        await connection.execute(told, {"id": served, "labels": json.dumps(LABELS)})
    return lost, served


async def test_who_paid_and_operators_find_a_call_by_what_is_known_of_it(
    bourse: Bourse, people: People, enter: Enter, two: tuple[UUID, UUID]
) -> None:
    lost, served = two
    between = (bourse.clock() - timedelta(minutes=90)).isoformat()
    for account in (people.clinic, people.operator):
        client = await enter(account)
        for asked, calls in (
            ({}, [served, lost]),
            ({"status": "5xx", "model": ""}, [lost]),
            ({"model": "acme/general"}, [served]),
            ({"endpoint": "borealis/law"}, [lost]),
            ({"endpoint": "borealis/none"}, []),
            ({"labels": "run=7, team=a"}, [served]),
            ({"labels": "team=b"}, []),
            ({"labels": json.dumps(LABELS)}, [served]),
            ({"labels": '{"topics": "rent"}'}, []),
            ({"from": between}, [served]),
            ({"to": between}, [lost]),
            ({"domain": "law", "status": "200"}, []),
        ):
            page = await client.get("/console/calls", params=asked)
            assert (page.status_code, found(page.text)) == (200, calls), asked
            assert ("No such call." in page.text) == (not calls)
    page = await (await enter(people.notary)).get("/console/calls")
    assert found(page.text) == [], "what another paid is none of its affairs"


async def test_what_was_asked_for_stays_in_the_form_as_text(
    people: People, enter: Enter, two: tuple[UUID, UUID]
) -> None:
    client = await enter(people.clinic)
    asked = {"model": '"><img src=x>', "from": "2026-01-31T12:30:00+02:00", "status": "600"}
    page = await client.get("/console/calls", params=asked)
    assert page.status_code == 400
    assert "status: not a number such as 502" in page.text
    assert 'value="&#34;&gt;&lt;img src=x&gt;"' in page.text
    assert 'value="2026-01-31T10:30" data-at="2026-01-31T10:30:00+00:00"' in page.text
    assert found(page.text) == []
    for bad in (
        *({"from": "yesterday"}, {"to": "0001-01-01T00:00+14:00"}, {"cursor": "1"}),
        {"to": "2026-01-31T12:00", "from": "2026-01-31T12:00"},
    ):
        for headers in ({}, PIECE):
            refused = await client.get("/console/calls", params=bad, headers=headers)
            assert refused.status_code == 400
            assert f"{next(iter(bad))}: not" in refused.text


async def test_older_calls_come_as_a_piece_until_there_are_none(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    now = bourse.clock()
    calls = [
        await bourse.call(people.clinic, wanted(people.clinic), at=now - timedelta(minutes=number))
        for number in range(SHOWN + 3)
    ]
    client = await enter(people.clinic)
    first = (await client.get("/console/calls?model=auto&colour=red")).text
    assert found(first) == calls[:SHOWN]
    address = older(first)
    assert address is not None
    assert "model=auto" in address
    assert "colour" not in address
    rest = (await client.get(address, headers=PIECE)).text
    assert found(rest) == calls[SHOWN:]
    assert older(rest) is None
    assert "There are no older ones." in rest
    assert "<form" not in rest


async def test_a_provider_looks_by_endpoint_and_time_and_for_nothing_that_it_is_not_told(
    people: People, enter: Enter, two: tuple[UUID, UUID]
) -> None:
    lost, served = two
    names = {*FIELDS, *MORE}
    for account, own, call in (
        (people.acme, "acme/general", served),
        (people.borealis, "borealis/law", lost),
    ):
        client = await enter(account)
        page = (await client.get("/console/calls")).text
        assert found(page) == [call]
        assert "clinic" not in page
        assert names & {*re.findall(r'name="(\w+)"', page)} == {"endpoint"}
        for endpoint in ("acme/general", "borealis/law"):
            answer = await client.get("/console/calls", params={"endpoint": endpoint})
            assert found(answer.text) == ([call] if endpoint == own else [])
        refused = await client.get("/console/calls", params={"model": "acme/general"})
        assert refused.status_code == 400
        assert found(refused.text) == []
