"""The console, told what nobody would type: it answers, or says what is wrong, and never breaks."""

from __future__ import annotations

import random

import httpx

from tests.fuzzed import NIGHTLY
from tests.integration.web.conftest import Enter, People, token_in

CONSOLE = "/console"
FIELDS = {
    "/calls": (
        *("status", "model", "endpoint", "labels", "key_id", "code", "task", "domain"),
        *("task_label", "session_id", "from", "to", "cursor"),
    ),
    "/": ("endpoint",),
    "/board": (),
    "/endpoints/1": (),
    "/endpoints/1/series": ("minutes",),
    "/domains": (),
    "/simulations": ("order",),
    "/login": ("token",),
}
FORMS = {
    "/domains": ("name", "examples"),
    "/domains/forget": ("name",),
    "/simulations": ("what", "controllers", "seeds", "settings", "grid"),
    "/login": ("token", "key"),
}
FITTING = {
    "what": "steady",
    "controllers": "excess",
    "seeds": "1",
    "settings": "demand.scale=1.5",
    "grid": "controller.gain=0.5,1",
}
ODD = (
    *("", " ", "\0", "a\0b", "\x7f", "\ufeff", "\U0010ffff", "e\u0301" * 40, "\u202e"),
    *("%", "%00", "%zz", "market:9", "market:x", "=,=", "demand.scale=" + "9" * 400),
    *("-1", "0", "1", "1e999", "NaN", "2147483648", "9" * 40, "1" * 5_000, "\u0663", "1_0", "+1"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30", "2026-W01", "T"),
    *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    *("5xx", "0xx", "=", "a=", "=b", "a=b,a=b", "a=b," * 40, "acme/", "/general", "acme/general/x"),
    *("' OR 1=1 --", '"><b>', "{{ 7*7 }}", "{}", "[]", "null", "law", "tiny-law", "x" * 300),
)


async def test_whatever_is_in_an_address_of_the_console_is_no_fault_of_its_own(
    people: People, enter: Enter
) -> None:
    draw = random.Random(7)
    for account in (people.operator, people.clinic, people.acme):
        client = await enter(account)
        for path, fields in FIELDS.items():
            for field in fields:
                for odd in ODD if NIGHTLY else draw.sample(ODD, 6):
                    others = {each: draw.choice(ODD) for each in fields if draw.random() < 0.1}
                    await _asked(client, path, others | {field: odd})


async def test_whatever_is_sent_in_a_form_of_the_console_is_no_fault_of_its_own(
    people: People, enter: Enter
) -> None:
    draw = random.Random(7)
    client = await enter(people.operator)
    token = token_in(await client.get(f"{CONSOLE}/domains"))
    for path, fields in FORMS.items():
        for odd in ODD:
            told = {each: FITTING.get(each, "law") for each in fields}
            told |= {each: draw.choice(ODD) for each in fields if draw.random() < 0.3}
            told[draw.choice(fields)] = odd
            answer = await client.post(CONSOLE + path, data={**told, "csrf_token": token})
            assert answer.status_code < 500, (path, told, answer.text)


async def _asked(client: httpx.AsyncClient, path: str, told: dict[str, str]) -> None:
    headers = {"hx-request": "true"} if len(told) % 2 else {}
    answer = await client.get(CONSOLE + path, params=told, headers=headers)
    assert answer.status_code < 500, (path, told, answer.text)
