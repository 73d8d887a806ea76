"""Who gets in, how, and what guards the door."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import httpx
from litestar.types import ASGIApp

from broker.flows.access.login import LINK_LIFETIME, SESSION_COOKIE, SESSION_LIFETIME, make_link
from tests.integration.web.bourse import Bourse
from tests.integration.web.conftest import Enter, People, browser, follow, token_in
from web.app import create_console


async def link(bourse: Bourse, people: People) -> str:
    return await make_link(bourse.engine, people.clinic.id, bourse.clock())


async def test_a_link_logs_in_and_leaves_no_token_in_the_address(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    token = await link(bourse, people)
    entered = await follow(stranger, token)
    assert (entered.status_code, entered.headers["location"]) == (303, "/console")
    assert token not in str(entered.headers)
    assert "clinic" in (await stranger.get("/console")).text


async def test_the_session_cookie_is_for_the_console_alone(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    token = await link(bourse, people)
    entered = await follow(stranger, token)
    cookie = entered.headers["set-cookie"].lower()
    assert cookie.startswith(SESSION_COOKIE)
    for trait in ("httponly", "samesite=strict", "path=/console", "max-age=43200"):
        assert trait in cookie
    assert "secure" not in cookie, "a broker on plain http could not log anybody in"


async def test_cookies_are_secure_where_the_broker_is_on_https(
    bourse: Bourse, people: People
) -> None:
    bourse.settings = replace(bourse.settings, public_url="https://broker.example.com")
    async with browser(create_console(bourse)) as client:
        client.base_url = "https://console.example.com"
        token = await link(bourse, people)
        form = await client.get("/console/login")
        entered = await follow(client, token)
    assert "secure" in form.headers["set-cookie"].lower()
    assert "secure" in entered.headers["set-cookie"].lower()


async def test_a_link_works_once(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    token = await link(bourse, people)
    await follow(stranger, token)
    stranger.cookies.clear()
    again = await follow(stranger, token)
    assert again.status_code == 401
    assert "used before" in again.text
    assert SESSION_COOKIE not in stranger.cookies


async def test_who_only_looks_at_a_link_does_not_use_it_up(
    stranger: httpx.AsyncClient, console: ASGIApp, bourse: Bourse, people: People
) -> None:
    token = await link(bourse, people)
    async with browser(console) as scanner:
        for _ in range(2):
            page = await scanner.get("/console/login", params={"token": token})
            assert page.status_code == 200
            assert SESSION_COOKIE not in scanner.cookies
        await scanner.head("/console/login", params={"token": token})
        from_elsewhere = await scanner.post(
            "/console/login", data={"token": token, "csrf_token": "guessed"}
        )
        assert from_elsewhere.status_code == 403
    assert page.text.count("<button") == 1
    assert 'name="key"' not in page.text
    assert (await follow(stranger, token)).status_code == 303


async def test_a_link_that_is_too_old_opens_nothing(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    token = await link(bourse, people)
    now = bourse.clock()
    bourse.clock = lambda: now + LINK_LIFETIME + timedelta(seconds=1)
    assert (await follow(stranger, token)).status_code == 401


async def test_a_key_logs_in_through_the_form(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    form = await stranger.get("/console/login")
    data = {"csrf_token": token_in(form), "key": await bourse.key(people.acme)}
    entered = await stranger.post("/console/login", data=data)
    assert (entered.status_code, entered.headers["location"]) == (303, "/console")
    assert "provider" in (await stranger.get("/console")).text


async def test_a_wrong_key_is_refused_and_not_shown_again(
    stranger: httpx.AsyncClient, people: People
) -> None:
    form = await stranger.get("/console/login")
    data = {"csrf_token": token_in(form), "key": "bk_abcdef_wrong"}
    refused = await stranger.post("/console/login", data=data)
    assert refused.status_code == 401
    assert "wrong, revoked or expired" in refused.text
    assert "bk_abcdef_wrong" not in refused.text


async def test_a_key_that_the_database_cannot_look_for_is_refused_and_no_trouble_of_ours(
    stranger: httpx.AsyncClient,
) -> None:
    form = await stranger.get("/console/login")
    data = {"csrf_token": token_in(form), "key": "bk_\0_wrong"}
    refused = await stranger.post("/console/login", data=data)
    assert refused.status_code == 400
    assert "a text with a NUL" in refused.text


async def test_a_login_form_of_another_site_is_refused(
    stranger: httpx.AsyncClient, bourse: Bourse, people: People
) -> None:
    key = await bourse.key(people.clinic)
    without_cookie = await stranger.post("/console/login", data={"key": key, "csrf_token": "x"})
    await stranger.get("/console/login")
    wrong_token = await stranger.post("/console/login", data={"key": key, "csrf_token": "x"})
    no_token = await stranger.post("/console/login", data={"key": key})
    assert {each.status_code for each in (without_cookie, wrong_token, no_token)} == {403}
    assert SESSION_COOKIE not in stranger.cookies


async def test_logging_out_ends_the_session_everywhere(people: People, enter: Enter) -> None:
    client = await enter(people.clinic)
    session = client.cookies[SESSION_COOKIE]
    page = await client.get("/console")
    left = await client.post("/console/logout", data={"csrf_token": token_in(page)})
    assert (left.status_code, left.headers["location"]) == (303, "/console/login")
    assert SESSION_COOKIE not in client.cookies
    client.cookies.set(SESSION_COOKIE, session)
    assert (await client.get("/console")).status_code == 303


async def test_another_site_cannot_log_anybody_out(people: People, enter: Enter) -> None:
    client = await enter(people.clinic)
    for data in ({}, {"csrf_token": "guessed"}):
        assert (await client.post("/console/logout", data=data)).status_code in (400, 403)
    assert (await client.get("/console")).status_code == 200


async def test_a_session_ends_by_itself(bourse: Bourse, people: People, enter: Enter) -> None:
    client = await enter(people.clinic)
    now = bourse.clock()
    bourse.clock = lambda: now + SESSION_LIFETIME + timedelta(seconds=1)
    assert (await client.get("/console")).headers["location"] == "/console/login"


async def test_a_stranger_is_led_to_the_login_whatever_it_asks_for(
    stranger: httpx.AsyncClient, people: People
) -> None:
    for path in ("", "/", "/board", "/endpoints/0", "/calls/0197f2a0-0000-7000-8000-000000000000"):
        answer = await stranger.get(f"/console{path}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/login")
    for path in ("/events", "/endpoints/0/series"):
        answer = await stranger.get(f"/console{path}", headers={"accept": "*/*"})
        assert answer.status_code == 401
    piece = await stranger.get("/console/board", headers={"hx-request": "true"})
    assert (piece.status_code, piece.headers["hx-redirect"]) == (401, "/console/login")


async def test_a_link_from_another_site_takes_one_more_step(
    stranger: httpx.AsyncClient, people: People, enter: Enter
) -> None:
    # The browser kept the strict cookie back, for the step came from elsewhere.
    answer = await stranger.get("/console", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/console/login"' in answer.text
    client = await enter(people.clinic)
    assert (await client.get("/console/login")).headers["location"] == "/console"
