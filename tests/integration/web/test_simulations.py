"""What-if on the console: for operators alone, ordered by a form, watched, called off, read."""

from __future__ import annotations

import asyncio
import re
import zlib
from uuid import UUID, uuid4

import httpx
import pytest

from broker.errors import Conflict
from broker.flows.access.authenticate import Caller
from broker.flows.market.order_simulation import OPEN_MAX, order_simulation, read_simulations
from broker.store.access.accounts import Role
from broker.store.market import simulations as store
from simulations.orders import plan_of
from tests.integration.web.bourse import Bourse
from tests.integration.web.conftest import Enter, People

PAGE = "/console/simulations"
PIECE = {"hx-request": "true"}
_TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


@pytest.fixture
async def operator(bourse: Bourse, enter: Enter) -> httpx.AsyncClient:
    return await enter(await bourse.account(Role.OPERATOR, "boss"))


async def send(client: httpx.AsyncClient, path: str = PAGE, **form: object) -> httpx.Response:
    page = await client.get(PAGE)
    token = _TOKEN.search(page.text)
    assert token is not None
    return await client.post(path, data={"csrf_token": token[1]} | form)


async def newest(bourse: Bourse) -> store.StoredSimulation:
    return (await read_simulations(bourse.engine, 1))[0]


async def test_the_form_orders_what_it_says(bourse: Bourse, operator: httpx.AsyncClient) -> None:
    page = (await operator.get(PAGE)).text
    assert "flash crowd" in page
    assert "None yet." in page
    answer = await send(
        operator,
        what="steady",
        controllers=["posted", "excess"],
        seeds="2",
        settings="demand.scale = 1.5  controller.target=0.8",
        grid="controller.gain= 0.5, 2  demand.elasticity = 1 : 4 : 3 : log",
        static="1",
    )
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    order = await newest(bourse)
    assert (order.name, order.author, order.status) == ("steady", "boss", "waiting")
    assert order.asked["controllers"] == ["posted", "excess"]
    assert order.asked["settings"] == {"demand.scale": 1.5, "controller.target": 0.8}
    assert order.asked["grid"] == {"controller.gain": [0.5, 2], "demand.elasticity": "1:4:3:log"}
    plan = plan_of(order.asked)
    assert [axis.values for axis in plan.grid] == [(0.5, 2), (1.0, 2.0, 4.0)]
    rows = (await operator.get(PAGE, headers=PIECE)).text
    assert "<html" not in rows
    assert "waiting" in rows
    assert 'hx-trigger="every 2s"' in rows


async def test_this_market_can_be_played_again(bourse: Bourse, operator: httpx.AsyncClient) -> None:
    assert (await send(operator, what="market:7", seeds="1")).status_code == 303
    assert (await newest(bourse)).asked["from_broker_days"] == 7
    assert (await newest(bourse)).name == "market"


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"what": "../../etc/passwd"}, "There is no scenario"),
        ({"what": "steady", "controllers": "magic"}, "There is no controller"),
        ({"what": "steady", "settings": "no.such.thing=1"}, "there is no such field"),
        ({"what": "steady", "seeds": "0"}, "seeds"),
        ({"what": "steady", "seeds": "101"}, "seeds: must be at most 100."),
        ({"what": "steady", "seeds": "many"}, "seeds: must be a whole number, not a text."),
        (
            {"what": "steady", "grid": "controller.gain"},
            "is not written NAME=A,B,C or NAME=FROM:TO",
        ),
        ({"what": "steady", "grid": "demand.scale=1:2"}, "is not written NAME=FROM:TO:COUNT."),
        ({"what": "market:1", "grid": "demand.scale=1:2:999", "seeds": "9"}, "these are 8991:"),
        ({"what": "steady", "settings": "demand.scale="}, "is not written NAME=VALUE."),
        ({"what": "steady", "seeds": "9" * 400}, "seeds"),
        ({"what": "steady", "settings": "demand.scale=1e999"}, "must be a number"),
        ({"what": "steady", "settings": f"demand.scale={10**400}"}, "must be a number"),
        ({"what": "market:nan"}, "from_broker_days"),
        ({"what": "market:-1"}, "from_broker_days"),
        ({"what": "market:1", "settings": "a=nan,b=\0"}, "cannot be kept"),
        ({"what": "steady", "grid": "controller.gain=<b>"}, "controller.gain"),
        ({"what": ""}, "Name a"),
    ],
)
async def test_what_is_wrong_is_told_above_the_form(
    bourse: Bourse, operator: httpx.AsyncClient, form: dict[str, str], told: str
) -> None:
    answer = await send(operator, **form)
    assert answer.status_code in (400, 422)
    assert told in answer.text
    assert "<b>" not in answer.text.partition('role="alert"')[2].partition("</p>")[0]
    assert await read_simulations(bourse.engine, 1) == []


async def test_what_was_filled_in_is_still_there_above_what_is_wrong(
    operator: httpx.AsyncClient,
) -> None:
    form = {"what": "outage", "controllers": "pi", "seeds": "7", "settings": "list.scale=2"}
    page = (await send(operator, **form, grid='x="y')).text
    assert re.search(r'value="outage"[^>]* selected', page)
    assert page.count(" selected") == 1
    assert re.findall(r'name="controllers" value="(\w+)" checked', page) == ["pi"]
    assert 'name="static" value="1">' in page
    for told in ('value="7"', 'value="list.scale=2"', 'value="x=&#34;y"'):
        assert told in page


async def test_an_order_is_called_off(bourse: Bourse, operator: httpx.AsyncClient) -> None:
    await send(operator, what="steady", seeds="1")
    path = f"{PAGE}/{(await newest(bourse)).id}/cancel"
    assert (await send(operator, path)).status_code == 303
    assert (await newest(bourse)).status == "cancelled"
    assert (await send(operator, path)).status_code == 409


async def test_of_two_who_order_the_last_place_at_once_one_gets_it(bourse: Bourse) -> None:
    boss = await bourse.account(Role.OPERATOR, "boss")
    author, now = Caller(boss.id, boss.name, boss.role), bourse.clock()
    asked = {"scenario": "steady", "seeds": 1}
    async with bourse.engine.begin() as connection:
        for _ in range(OPEN_MAX - 1):
            await order_simulation(connection, author, asked, now)
    async with bourse.engine.connect() as first, bourse.engine.connect() as second:
        await order_simulation(first, author, asked, now)
        late = asyncio.create_task(order_simulation(second, author, asked, now))
        done, _ = await asyncio.wait([late], timeout=0.5)
        assert not done, "it waits for the first"
        await first.commit()
        with pytest.raises(Conflict):
            await late


async def test_an_order_that_says_no_more_than_it_must_is_shown(
    bourse: Bourse, operator: httpx.AsyncClient
) -> None:
    """As `POST /api/simulations` writes it down, which leaves out what is as usual."""
    api = await bourse.account(Role.OPERATOR, "script")
    async with bourse.engine.begin() as connection:
        author = Caller(api.id, api.name, api.role)
        await order_simulation(connection, author, {"scenario": "steady"}, bourse.clock())
    for headers in ({}, PIECE):
        page = await operator.get(PAGE, headers=headers)
        assert page.status_code == 200
        assert "<small>script</small>" in page.text


async def test_progress_and_report_are_shown(bourse: Bourse, operator: httpx.AsyncClient) -> None:
    await send(operator, what="steady", seeds="1")
    order = await newest(bourse)
    now = bourse.clock()
    async with bourse.engine.begin() as connection:
        await store.begin(connection, order.id, "plan", 8, now)
        await store.add_cells(connection, order.id, [("key", "cell")], (now, now))
        await store.keep(connection, order.id, "key", "outcome")
    assert "1 of 8" in (await operator.get(PAGE, headers=PIECE)).text
    page = zlib.compress(b"<html><script>1</script></html>")
    async with bourse.engine.begin() as connection:
        await store.end(connection, order.id, store.DONE, now, report=page, summary=[])
    rows = (await operator.get(PAGE, headers=PIECE)).text
    assert f"{PAGE}/{order.id}/report" in rows
    assert "hx-trigger" not in rows
    report = await operator.get(f"{PAGE}/{order.id}/report")
    assert report.text == "<html><script>1</script></html>"
    policies = report.headers.get_list("content-security-policy")
    assert len(policies) == 1
    assert policies[0].startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policies[0]
    assert report.headers["x-frame-options"] == "DENY"


async def test_nobody_but_operators_knows_of_it(
    bourse: Bourse, people: People, enter: Enter, operator: httpx.AsyncClient
) -> None:
    await send(operator, what="steady", seeds="1")
    order_id: UUID = (await newest(bourse)).id
    assert PAGE in (await operator.get("/console")).text
    for person in (people.acme, people.clinic):
        client = await enter(person)
        assert PAGE not in (await client.get("/console")).text
        for path in (PAGE, f"{PAGE}/{order_id}/report"):
            assert (await client.get(path)).status_code == 404
        for path in (PAGE, f"{PAGE}/{order_id}/cancel"):
            assert (await client.post(path, data={"csrf_token": "x"})).status_code == 404


async def test_a_form_from_elsewhere_does_nothing(
    bourse: Bourse, operator: httpx.AsyncClient
) -> None:
    for token in ("", "other"):
        answer = await operator.post(PAGE, data={"csrf_token": token, "what": "steady"})
        assert answer.status_code == 403
    assert await read_simulations(bourse.engine, 1) == []
    assert (await operator.get(f"{PAGE}/{uuid4()}/report")).status_code == 404


@pytest.mark.parametrize("which", ["equilibrium", "earning"])
async def test_an_endpoint_shows_the_prices_that_would_clear_and_that_would_earn_most(
    bourse: Bourse, people: People, enter: Enter, which: str
) -> None:
    endpoint = bourse.market.endpoint(bourse.market.by_name["acme/general"])
    bourse.pulse.begin(endpoint.number, endpoint.deployment.number, 0.0)
    client = await enter(people.clinic)
    page = (await client.get(f"/console/endpoints/{endpoint.number}", headers=PIECE)).text
    cell = page.partition(f'data-cell="{which}">')[2].partition("<")[0]
    assert re.fullmatch(r"[\d.]+ \$/\w+( \w+)?", cell), cell
