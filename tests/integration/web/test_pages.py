"""What each role sees, and what it does not."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import event, text
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from broker.core.market import Presence
from broker.core.outcome import DELIVERED, Fault
from broker.core.quality.evidence import Grade, Piece, Source
from broker.store.access.accounts import Role
from broker.store.database import create_engine
from broker.store.quality import canaries, evidence, examinations
from broker.store.quality.canaries import Perch
from broker.store.quality.examinations import Claim
from provider_sdk.protocol import CallBand, ProbeReport
from tests.integration.web.bourse import Bourse, chat, failed, server, wanted
from tests.integration.web.conftest import Enter, People
from web.board import ROWS_MAX

PIECE = {"hx-request": "true"}


async def test_an_empty_market_says_what_to_do(bourse: Bourse, enter: Enter) -> None:
    for role in Role:
        client = await enter(await bourse.account(role, f"first-{role}"))
        page = await client.get("/console")
        assert page.status_code == 200
        assert "broker-provider run provider.toml" in page.text
        assert "No calls yet" in page.text


PLACES = {
    "/console": "Market",
    "/console/calls": "Calls",
    "/console/simulations": "Simulations",
    "/console/domains": "Domains",
}


async def test_each_page_leads_to_all_others_that_its_viewer_may_see_and_out(
    bourse: Bourse, enter: Enter
) -> None:
    for role in Role:
        client = await enter(await bourse.account(role, f"walker-{role}"))
        pages = {path: await client.get(path) for path in PLACES}
        seen = {path for path, page in pages.items() if page.status_code == 200}
        assert len(seen) == {"consumer": 2, "provider": 3, "operator": 4}[role]
        for path in seen:
            text = pages[path].text
            linked = {to for to, name in PLACES.items() if f'href="{to}">{name}</a>' in text}
            assert linked == seen - {path}, (role, path)
            assert 'action="/console/logout"' in text
            assert re.search(r'name="csrf_token" value="[^"]+"', text), (role, path)


async def test_the_market_shows_price_load_and_state(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    await bourse.offer(
        people.acme,
        server(
            "triton",
            chat(
                "tickets",
                tasks=["infer"],
                price=CallBand(floor_call="0.0001", list_call="0.0002", ceiling_call="0.002"),
            ),
            kind="kserve",
            capacity=4,
        ),
    )
    tickets = bourse.market.endpoint(bourse.market.by_name["acme/tickets"])
    await bourse.reload({tickets.deployment.number: Presence.DRAINING})
    bourse.pulse.in_flight[tickets.deployment.number] = 3
    page = (await (await enter(people.clinic)).get("/console")).text
    row = page.partition(f'id="row-{tickets.number}"')[2].partition("</tr>")[0]
    assert "0.000200" in row
    assert "$/call" in row
    assert "3/4" in row
    assert "draining" in row
    assert 'class="line" d="M' in row


@pytest.mark.parametrize(
    ("state", "presence", "ejected"),
    [
        ("ready", Presence.READY, False),
        ("draining", Presence.DRAINING, False),
        ("away", Presence.DOWN, False),
        ("ejected", Presence.READY, True),
    ],
)
async def test_every_state_has_its_badge(
    bourse: Bourse, people: People, enter: Enter, state: str, presence: Presence, ejected: bool
) -> None:
    endpoint = bourse.market.endpoint(bourse.market.by_name["acme/general"])
    await bourse.reload({endpoint.deployment.number: presence})
    if ejected:
        bourse.pulse.doubts.elsewhere = frozenset({endpoint.number})
    page = (await (await enter(people.clinic)).get("/console")).text
    row = page.partition(f'id="row-{endpoint.number}"')[2].partition("</tr>")[0]
    assert f'class="badge {state}"' in row


async def test_how_long_a_first_token_takes_is_told_once_somebody_was_served(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    number = bourse.market.by_name["acme/general"]
    client = await enter(people.clinic)
    told = {}
    for ttft_ms in (float(bourse.pulse.ttft_ms[number]), 430.0):
        bourse.pulse.ttft_ms[number] = ttft_ms
        panel = (await client.get(f"/console/endpoints/{number}", headers=PIECE)).text
        told[ttft_ms] = panel.partition("<dt>First token</dt>")[2].partition("</dd>")[0]
    assert list(told.values()) == ["<dd>\u2013", "<dd>430 ms"]


async def test_a_private_endpoint_is_shown_only_to_whom_it_is_listed_for(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    await bourse.offer(people.acme, server("vault", chat("secret", visible_to=["clinic"])))
    number = bourse.market.by_name["acme/secret"]
    seen = {}
    for account in (people.clinic, people.notary, people.acme, people.borealis, people.operator):
        client = await enter(account)
        page = await client.get("/console")
        panel = await client.get(f"/console/endpoints/{number}", headers=PIECE)
        series = await client.get(f"/console/endpoints/{number}/series")
        seen[account.name] = f"endpoints/{number}" in page.text
        expected = 200 if seen[account.name] else 404
        assert (panel.status_code, series.status_code) == (expected, expected)
    assert seen == {
        "clinic": True, "notary": False, "acme": True, "borealis": False, "desk": True,
    }  # fmt: skip


async def test_the_inner_side_of_an_endpoint_is_for_its_provider_and_operators(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    number = bourse.market.by_name["acme/general"]
    shown = {}
    for account in (people.clinic, people.acme, people.borealis, people.operator):
        client = await enter(account)
        panel = await client.get(f"/console/endpoints/{number}", headers=PIECE)
        shown[account.name] = "https://gpu1.example.com" in panel.text
    assert shown == {"clinic": False, "acme": True, "borealis": False, "desk": True}


async def test_a_claim_that_its_examination_refutes_is_shown_as_refuted(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    terms = server("laws", chat("law", domains={"law": 0.9, "tax": 0.8}))
    await bourse.offer(people.acme, terms)
    law = bourse.market.endpoint(bourse.market.by_name["acme/law"])
    now = datetime.now(UTC)
    async with bourse.engine.begin() as connection:
        claim = Claim(law.id, "law", now)
        [order] = await examinations.order(connection, [claim], "registration", now)
        await examinations.begin(connection, order.id, 40, now)
        await examinations.proceed(connection, order.id, 40, now)
        await examinations.end(connection, order.id, now, found=(0.5, 40))
    client = await enter(people.clinic)
    panel = (await client.get(f"/console/endpoints/{law.number}", headers=PIECE)).text
    assert panel.count("<dt>examined</dt>") == 1
    assert "claim refuted" in panel
    assert "over 40 prompts" in panel


async def hear(bourse: Bourse, endpoint_id: UUID, grade: Grade, score: float, at: datetime) -> None:
    """Let twelve canaries be answered well, and as many calls get this feedback."""
    piece = Piece(at, endpoint_id, Source.FEEDBACK, grade, score, "law")
    async with bourse.engine.begin() as connection:
        for _ in range(12):
            await canaries.record(connection, uuid7(), Perch(endpoint_id, "law"), 1.0, at)
        await evidence.record(connection, [piece] * 12)


async def gap_shown(client: httpx.AsyncClient, number: int) -> str:
    """Return what the panel of an endpoint says of the gap, nothing where it says nothing."""
    panel = (await client.get(f"/console/endpoints/{number}", headers=PIECE)).text
    line = panel.partition("<dt>gap in law</dt>")[2].partition("</dd>")[0]
    return line.partition('">')[2]


async def test_who_answers_canaries_better_than_traffic_is_shown_to_operators_and_itself(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    law = bourse.market.endpoint(bourse.market.by_name["borealis/law"])
    await hear(bourse, law.id, Grade.BINARY, 0.0, bourse.clock() - timedelta(days=2))
    shown = {}
    for account in (people.clinic, people.acme, people.borealis, people.operator):
        shown[account.name] = await gap_shown(await enter(account), law.number)
    assert shown["clinic"] == shown["acme"] == ""
    assert shown["desk"] == shown["borealis"]
    assert shown["desk"].startswith("+100 points <small>+")
    assert "canaries answered better than traffic" in shown["desk"]


async def test_a_provider_sees_no_gap_of_today_by_which_it_would_know_a_canary(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    law = bourse.market.endpoint(bourse.market.by_name["borealis/law"])
    await hear(bourse, law.id, Grade.BINARY, 0.0, bourse.clock())
    assert await gap_shown(await enter(people.borealis), law.number) == ""
    assert "+100 points" in await gap_shown(await enter(people.operator), law.number)


async def test_a_gap_on_a_scale_is_that_beside_others_of_the_domain(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    number = bourse.market.by_name["borealis/law"]
    desk, at = await enter(people.operator), bourse.clock() - timedelta(days=2)
    await hear(bourse, bourse.market.endpoint(number).id, Grade.GRADED, 0.1, at)
    assert "too few canaries" in await gap_shown(desk, number)
    general = bourse.market.endpoint(bourse.market.by_name["acme/general"])
    await hear(bourse, general.id, Grade.GRADED, 0.8, at)
    assert (await gap_shown(desk, number)).startswith("+70 points")


async def test_a_deployment_that_failed_its_probes_says_so_to_its_provider(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    deployment = await bourse.register(people.acme, server("gpu9", chat("new")))
    report = ProbeReport(check="call", ok=False, detail="answered 404")
    await bourse.fail(deployment, [ProbeReport(check="proof", ok=True, detail="fine"), report])
    for account, shown in ((people.acme, True), (people.operator, True), (people.borealis, False)):
        page = (await (await enter(account)).get("/console")).text
        assert ("acme/gpu9" in page) is shown
        assert ("call: answered 404" in page) is shown
        assert "proof: fine" not in page


async def test_a_consumer_sees_its_own_calls_and_an_operator_all(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    own = await bourse.call(people.clinic, wanted(people.clinic))
    other = await bourse.call(people.notary, wanted(people.notary))
    clinic = (await (await enter(people.clinic)).get("/console")).text
    desk = (await (await enter(people.operator)).get("/console")).text
    assert f"call-{own}" in clinic
    assert f"call-{other}" not in clinic
    assert "notary" not in clinic
    assert f"call-{own}" in desk
    assert f"call-{other}" in desk


async def test_a_provider_finds_its_own_endpoint_chosen(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    number = bourse.market.by_name["borealis/law"]
    page = (await (await enter(people.borealis)).get("/console")).text
    assert f'data-number="{number}"' in page.partition('id="endpoint"')[2]


async def test_anothers_call_is_as_unknown_as_none(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    call = await bourse.call(people.clinic, wanted(people.clinic, model="tiny-law"))
    for account in (people.notary, people.acme):
        client = await enter(account)
        others = await client.get(f"/console/calls/{call}", headers=PIECE)
        nobodys = await client.get(f"/console/calls/{uuid4()}", headers=PIECE)
        assert others.status_code == nobodys.status_code == 404
        assert others.text == nobodys.text


async def test_the_story_of_a_call_tells_candidates_rejected_attempts_and_charge(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    await bourse.offer(people.acme, server("far", chat("distant"), region="us-east"))
    asked = wanted(people.clinic, regions=frozenset({"eu-west"}), quality_min=0.2)
    outcomes = [failed(Fault.CONNECT_FAILED), DELIVERED]
    call = await bourse.call(people.clinic, asked, outcomes, tokens=(800, 100))
    story = (await (await enter(people.clinic)).get(f"/console/calls/{call}", headers=PIECE)).text
    assert re.search(r"data-whole>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC<", story), "the day too"
    assert "account " not in story
    seen = (await (await enter(people.operator)).get(f"/console/calls/{call}")).text
    assert f"account {people.clinic.name}" in seen
    assert '<a class="fact" href="/console">Market</a>' in seen
    assert "regions <b>eu-west</b>" in story
    assert "latency <b>11%</b>" in story, "the weights, by default"
    candidates = story.partition("Candidates")[2].partition("</section>")[0]
    assert "acme/general" in candidates
    assert "borealis/law" in candidates
    assert candidates.count("<svg") == 2 * 5
    rejected = story.partition("Rejected")[2].partition("</section>")[0]
    assert "Outside the asked region" in rejected
    assert "acme/distant" in rejected
    attempts = story.partition("Attempts")[2].partition("</section>")[0]
    assert "connect failed" in attempts
    assert "it was a connect_failed" in attempts
    assert "800 → 100 tokens" in attempts
    charge = story.partition(">Charge")[2].partition("</section>")[0]
    # 800 x 0.10 + 100 x 0.40 dollars per million tokens
    assert "$0.00012</b>" in charge
    assert "broker's take" not in charge


async def test_the_story_of_a_call_that_names_no_limits_tells_what_it_named(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    asked = wanted(people.clinic, tokens_out_max=None)
    call = await bourse.call(people.clinic, asked, tokens=(800, 100))
    answer = await (await enter(people.clinic)).get(f"/console/calls/{call}", headers=PIECE)
    assert answer.status_code == 200
    assert "input at most <b>3,000</b>" in answer.text
    assert "output at most" not in answer.text
    assert "<b></b>" not in answer.text


async def test_a_page_that_breaks_tells_nothing_to_its_viewer_and_the_error_to_the_log(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    call = await bourse.call(people.clinic, wanted(people.clinic))
    client = await enter(people.clinic)
    async with bourse.ledger.transaction():
        await bourse.ledger.execute("SET LOCAL session_replication_role = replica")
        await bourse.ledger.execute("UPDATE calls SET story = 'broken' WHERE id = $1", call)
    with capture_logs() as logs:
        answer = await client.get(f"/console/calls/{call}", headers=PIECE)
    assert answer.status_code == 500
    assert "Something broke in the broker." in answer.text
    [told] = [each for each in logs if each["event"] == "page_broke"]
    assert told["path"] == f"/calls/{call}"
    assert isinstance(told["exc_info"], Exception)


async def test_a_refused_call_says_what_it_fell_to(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    asked = wanted(people.clinic, max_rate_out_micros=1)
    call = await bourse.call(people.clinic, asked, outcomes=[])
    client = await enter(people.clinic)
    page = (await client.get("/console")).text
    assert "price above max_price" in page
    story = (await client.get(f"/console/calls/{call}", headers=PIECE)).text
    assert "Price above max_price" in story
    assert "refused before it went anywhere" in story
    assert "Nothing was charged" in story


async def test_a_provider_sees_of_a_call_its_own_attempts_only(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    asked = wanted(people.clinic, domain="law")
    outcomes = [failed(Fault.SERVER_ERROR, 500), DELIVERED]
    call = await bourse.call(people.clinic, asked, outcomes)
    told = {}
    for account in (people.acme, people.borealis, people.operator):
        client = await enter(account)
        answer = await client.get(f"/console/calls/{call}", headers=PIECE)
        assert answer.status_code == 200
        told[account.name] = answer.text
    # the specialist comes first, fails, and the generalist serves
    assert "borealis/law" in told["borealis"]
    assert "server error" in told["borealis"]
    assert "acme/general" not in told["borealis"]
    assert "Nothing was charged" in told["borealis"]
    assert "acme/general" in told["acme"]
    assert "borealis/law" not in told["acme"]
    assert "broker's take" in told["acme"]
    for name in ("acme", "borealis"):
        for inner in ("clinic", "Candidates", "Asked for", "abcdef"):
            assert inner not in told[name]
    assert 'x="0.00%"' in told["acme"], "nor how long others had it before"
    assert "acme/general" in told["desk"]
    assert "borealis/law" in told["desk"]


async def test_of_a_call_whose_story_is_forgotten_the_charge_is_told(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    outcomes = [failed(Fault.SERVER_ERROR, 500), DELIVERED]
    call = await bourse.call(people.clinic, wanted(people.clinic, domain="law"), outcomes)
    async with bourse.engine.begin() as connection:
        await connection.execute(text("UPDATE calls SET story = ''"))
    for account, status in ((people.clinic, 200), (people.acme, 200), (people.borealis, 404)):
        client = await enter(account)
        answer = await client.get(f"/console/calls/{call}", headers=PIECE)
        assert answer.status_code == status, "of the providers who answered alone"
        if status == 200:
            assert "Forgotten: it was long ago." in answer.text
            assert "acme/general" in answer.text
            assert "Nothing was charged" not in answer.text


async def test_who_was_paid_for_a_part_of_a_call_is_told_it_when_its_story_is_forgotten(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    call = await bourse.call(people.clinic, wanted(people.clinic, model="acme/general"))
    async with bourse.engine.begin() as connection:
        # As of a cascade whose first answer, by acme, was paid and not good enough.
        ended_by = "(SELECT number FROM endpoints WHERE name = 'law')"
        await connection.execute(text(f"UPDATE calls SET story = '', endpoint_number = {ended_by}"))
    pages = {}
    for account in (people.acme, people.borealis):
        answer = await (await enter(account)).get(f"/console/calls/{call}", headers=PIECE)
        assert answer.status_code == 200
        pages[account.name] = answer.text
    assert "acme/general" in pages["acme"]
    assert "812" in pages["acme"]
    assert "acme/general" not in pages["borealis"]


async def test_a_call_that_a_provider_served_is_listed_so_when_its_story_is_forgotten(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    await bourse.call(people.clinic, wanted(people.clinic, model="acme/general"))
    async with bourse.engine.begin() as connection:
        await connection.execute(text("UPDATE calls SET story = ''"))
    page = (await (await enter(people.acme)).get("/console")).text.partition('id="calls"')[2]
    assert 'class="call ok"' in page
    assert "812<i>→</i>240" in page


async def test_a_provider_lists_what_it_served_and_earned(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    served = await bourse.call(people.clinic, wanted(people.clinic, model="acme/general"))
    elsewhere = await bourse.call(people.clinic, wanted(people.clinic, model="borealis/law"))
    page = (await (await enter(people.acme)).get("/console")).text
    calls = page.partition('id="calls"')[2]
    assert f"call-{served}" in calls
    assert f"call-{elsewhere}" not in calls
    # 812 x 0.10 + 240 x 0.40 dollars per million tokens, less a tenth
    assert 'title="$0.00015948"' in calls
    assert "clinic" not in calls
    assert "Earned" in page


async def test_a_call_to_a_retired_endpoint_keeps_its_name(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    call = await bourse.call(people.clinic, wanted(people.clinic, model="acme/general"))
    await bourse.ledger.execute("UPDATE endpoints SET retired_at = now()")
    client = await enter(people.clinic)
    story = await client.get(f"/console/calls/{call}", headers=PIECE)
    assert "acme/general" in story.text


async def test_what_a_provider_writes_is_text_and_never_markup(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    hostile = '"><img src=x onerror=alert(1)>'
    await bourse.offer(people.acme, server("evil", chat("bad", hostile)))
    call = await bourse.call(people.clinic, wanted(people.clinic, model=hostile))
    number = bourse.market.by_name["acme/bad"]
    client = await enter(people.clinic)
    for path in ("", f"/endpoints/{number}", f"/calls/{call}", "/board"):
        page = (await client.get(f"/console{path}", headers=PIECE)).text
        assert "<img" not in page
        if path:
            assert "&lt;img" in page or path == f"/calls/{call}"


async def test_every_answer_keeps_itself_to_itself(
    stranger: httpx.AsyncClient, people: People, enter: Enter
) -> None:
    client = await enter(people.clinic)
    answers = [
        await client.get("/console"),
        await client.get("/console/nowhere"),
        await stranger.get("/console"),
        await stranger.get("/console/login"),
        await stranger.post("/console/login", content=b"x" * 10_000),
    ]
    assert [each.status_code for each in answers][:4] == [200, 404, 303, 200]
    assert answers[4].status_code < 500
    for each in answers:
        policy = each.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert each.headers["x-frame-options"] == "DENY"
        assert each.headers["referrer-policy"] == "no-referrer"
        assert each.headers["cache-control"] == "no-store"
    assert "style=" not in answers[0].text
    assert "<script>" not in answers[0].text


async def test_static_files_are_kept_and_nothing_else_is_served(
    stranger: httpx.AsyncClient, people: People
) -> None:
    page = await stranger.get("/console/login")
    address = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
    file = await stranger.get(address)
    assert file.status_code == 200
    assert file.headers["content-type"].startswith("text/css")
    assert "immutable" in file.headers["cache-control"]
    for path in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "vendor", "nothing.js"):
        assert (await stranger.get(f"/console/static/{path}")).status_code == 404


async def test_the_series_of_an_endpoint_holds_price_and_load_over_time(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    number = bourse.market.by_name["acme/general"]
    await bourse.reprice({number: 2.0}, {number: 0.75}, bourse.clock())
    client = await enter(people.clinic)
    series = (await client.get(f"/console/endpoints/{number}/series?minutes=60")).json()
    assert series["price"] == [0.4, 0.8, 0.8]
    assert series["load"][:2] == [0.0, 0.75]
    assert series["at"] == sorted(series["at"])
    for minutes in ("0", "100000", "x"):
        answer = await client.get(f"/console/endpoints/{number}/series?minutes={minutes}")
        assert answer.status_code == 400


async def test_a_database_that_is_away_is_said_and_no_logout(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    client = await enter(people.clinic)
    engine, bourse.engine = bourse.engine, create_engine("postgresql://broker@127.0.0.1:1/broker")
    answer = await client.get("/console")
    await bourse.engine.dispose()
    bourse.engine = engine
    assert answer.status_code == 503
    assert "database is away" in answer.text
    assert (await client.get("/console")).status_code == 200


async def test_of_a_very_large_market_a_part_is_shown_and_the_others_by_their_number(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    many = [chat(f"z{number:03}") for number in range(ROWS_MAX)]
    await bourse.offer(people.acme, server("many", *many))
    named = bourse.market.by_name
    numbers = [named[name] for name in named]
    other = named["borealis/law"]
    assert other in numbers[ROWS_MAX:]
    browser = await enter(people.clinic)
    page = (await browser.get("/console")).text
    assert _rows(page) == set(numbers[:ROWS_MAX])
    assert f"{len(numbers) - ROWS_MAX} more are not shown" in page
    assert f'id="ready">{len(numbers)}/{len(numbers)}<' in page
    # One that is asked for by its number stands beside them, and its provider sees it first.
    assert other in _rows((await browser.get(f"/console/endpoints/{other}")).text)
    assert other in _rows((await (await enter(people.borealis)).get("/console/board")).text)
    # And who takes calls stands before who does not.
    away = numbers[0]
    await bourse.reload({away: Presence.DOWN})
    looked_s = bourse.now_s()
    bourse.now_s = lambda: looked_s + 1.0
    rows = _rows((await browser.get("/console/board")).text)
    assert rows == {*numbers[: ROWS_MAX + 1]} - {away}


async def test_of_an_endpoint_that_is_shown_besides_its_own_history_alone_is_read(
    bourse: Bourse, people: People, enter: Enter
) -> None:
    browser = await enter(people.clinic)
    known = _rows((await browser.get("/console")).text)
    read: list[list[int]] = []

    def note(*asked: Any) -> None:
        if "console_prices" in asked[2]:
            read.append(next(each for each in asked[3] if isinstance(each, list)))

    started_s = bourse.now_s()
    event.listen(bourse.engine.sync_engine, "before_cursor_execute", note)
    try:
        await bourse.offer(people.acme, server("late", chat("late")))
        bourse.now_s = lambda: started_s + 1.0
        [late] = _rows((await browser.get("/console/board")).text) - known
        assert read == [[late], [late]]
        read.clear()
        bourse.now_s = lambda: started_s + 10.0
        await browser.get("/console/board")
        assert [set(each) for each in read] == [known | {late}] * 2
    finally:
        event.remove(bourse.engine.sync_engine, "before_cursor_execute", note)


def _rows(page: str) -> set[int]:
    return {int(number) for number in re.findall(r'id="row-(\d+)"', page)}
