"""The commands of operators, on a database alone, as on one machine of many."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import structlog
import typer
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from broker.cli.main import app
from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.answer_dispute import contest
from broker.flows.money.dispute import Request, Times, open_dispute
from broker.store import ledger
from broker.store.access import accounts as account_store
from broker.store.access import keys as key_store
from broker.store.access.accounts import Account, Role
from broker.store.market import pricing_choices
from tests.integration.catalog.offers import open_account
from tests.integration.commands import command
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, fund, ledger_connection

_WITHIN_S = 60.0
_LOGS = """
import structlog
from pathlib import Path
from broker.cli.local import run_with_engine
from broker.cli.state import StateFolder

async def work(engine):
    structlog.get_logger().warning("logged")
    return "said"

print(run_with_engine(StateFolder(Path("none")), work))
"""
_TIMES = Times(timedelta(days=30), timedelta(days=7))


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Mapping[str, str]:
    return {
        "DATABASE_URL": database_url,
        "BROKER_PUBLIC_URL": "https://broker.example/",
        "BROKER_STATE": str(tmp_path),
        "COLUMNS": "120",
    }


async def test_an_account_is_opened_and_given_money_and_a_key_that_expires(
    environment: Mapping[str, str], engine: AsyncEngine
) -> None:
    opened = await command(environment, "accounts", "open", "acme")
    assert opened.status == 0
    [step] = [each.partition(": ")[2] for each in opened.said.splitlines() if "Give it" in each]
    assert step.endswith(f" keys issue acme --state {environment['BROKER_STATE']}")
    credited = await command(environment, "accounts", "topup", "acme", "2.50")
    assert credited.said == "acme has 2.50 USD available.\n"
    issued = await command(environment, "keys", "issue", "acme", "--days", "7", "--keep-answers")
    key_id = issued.said.split("_")[1]

    async with engine.connect() as connection:
        account = await account_store.by_name(connection, "acme")
        [key] = await key_store.list_keys(connection, account.id)
    assert key.id == key_id
    assert key.terms.content_kept == "replay"
    assert key.terms.expires_at is not None
    left = key.terms.expires_at - datetime.now(UTC)
    assert timedelta(days=6) < left < timedelta(days=7)
    listed = (await command(environment, "keys", "list", "acme")).said
    assert f"{key.terms.expires_at:%Y-%m-%d %H:%M}" in listed
    assert "expires (UTC)" in listed


async def test_a_key_is_made_for_less_rotated_given_a_budget_and_shown_so(
    environment: Mapping[str, str], engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await account_store.create(connection, Role.CONSUMER, "acme", datetime.now(UTC))
    limits = ("--scope", "calls", "--scope", "read", "--requests", "60", "--tokens", "9000")
    lists = ("--model", "small", "--provider", "gpus", "--domain", "law", "--day", "0.50")
    issued = await command(environment, "keys", "issue", "acme", *limits, *lists)
    key_id = issued.said.split("_")[1]
    rotated = await command(environment, "keys", "rotate", key_id, "--overlap-s", "60")
    assert rotated.said.startswith(f"bk_{key_id}_")
    assert rotated.said != issued.said
    changed = await command(environment, "keys", "budget", key_id, "--total", "3")
    assert "0.00 of 3.00 USD/total" in changed.said
    assert "USD/day" not in changed.said, "what is left out is lifted"
    listed = (await command(environment | {"COLUMNS": "250"}, "keys", "list", "acme")).said
    for limit in ("scopes calls read", "60 calls/min", "9000 tokens/min", "0.00 of 3.00 USD/total"):
        assert limit in listed, listed


async def test_a_key_is_known_by_its_whole_text_too_and_its_secret_is_told_to_nobody(
    environment: Mapping[str, str], engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await account_store.create(connection, Role.CONSUMER, "acme", datetime.now(UTC))
    issued = await command(environment, "keys", "issue", "acme")
    key_id = issued.said.split("_")[1]
    revoked = await command(environment, "keys", "revoke", issued.said.strip())
    assert (revoked.status, key_id in revoked.said) == (0, True), revoked.complained
    assert issued.said.split("_", 2)[2].strip() not in revoked.said


async def test_who_tops_up_by_less_than_nothing_or_a_stranger_is_told_what_is_wrong(
    environment: Mapping[str, str], engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await account_store.create(connection, Role.CONSUMER, "acme", datetime.now(UTC))
    less = await command(environment, "accounts", "topup", "acme", "-3")
    told = "broker: A top-up is above zero; an adjustment takes money away.\n"
    assert (less.status, less.complained) == (1, told)
    stranger = await command(environment, "accounts", "topup", "acne", "3")
    assert (stranger.status, stranger.complained) == (1, "broker: There is no account 'acne'.\n")


async def test_what_is_logged_beside_a_command_is_not_among_what_it_says() -> None:
    saying, logged = typer.Typer(), asyncio.Event()

    @saying.command()
    def say() -> None:
        loop.call_soon_threadsafe(log)
        asyncio.run_coroutine_threadsafe(logged.wait(), loop).result(_WITHIN_S)
        typer.echo("said")

    def log() -> None:
        structlog.get_logger().warning("logged")
        logged.set()

    loop = asyncio.get_running_loop()
    ended = await asyncio.to_thread(CliRunner().invoke, saying)
    assert ended.output == "said\n"


async def test_what_a_command_logs_goes_to_standard_error(database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LOGS),
        env=os.environ | {"DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complained = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    assert (process.returncode, said) == (0, b"said\n"), complained
    assert b"event=logged" in complained


def test_a_scope_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    ended = CliRunner().invoke(app, ["keys", "issue", "acme", "--scope", "everything"])
    assert isinstance(ended.exception, RequestMalformed)
    assert "calls, read, money, keys, deployments" in ended.exception.detail


async def test_a_login_link_needs_no_broker_on_this_machine(
    environment: Mapping[str, str],
) -> None:
    opened = await command(environment, "accounts", "open", "chief", "--role", "operator")
    assert opened.status == 0
    link = await command(environment, "login", "chief")
    assert link.said.startswith("https://broker.example/console/login?token=")


@pytest.mark.parametrize("amount", ["abc", "1e9", "0.0000000001", "0"])
async def test_an_amount_that_is_none_is_refused_in_one_line(
    environment: Mapping[str, str], amount: str
) -> None:
    refused = await command(environment, "accounts", "topup", "acme", amount)
    assert refused.status == 1
    assert refused.complained.startswith("broker: ")
    assert refused.complained.count("\n") == 1


async def test_a_database_that_is_away_is_said_in_one_line_by_a_process_too(
    environment: Mapping[str, str],
) -> None:
    away = {**environment, "DATABASE_URL": "postgresql://broker@127.0.0.1:1/broker"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.cli.main", "accounts", "list"),
        env=os.environ | away,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, said) == (1, b"")
    assert complained.startswith(b"broker: The database cannot be reached")
    assert complained.count(b"\n") == 1
    here = await command(away, "accounts", "list")
    assert (here.status, here.complained) == (1, complained.decode()), "as in the other tests"


async def test_a_database_that_is_starting_up_is_said_in_one_line(
    environment: Mapping[str, str],
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # whether it speaks TLS
        writer.write(b"N")
        await reader.read(1_024)
        told = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
        writer.write(b"E" + (len(told) + 4).to_bytes(4, "big") + told)
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        away = {**environment, "DATABASE_URL": f"postgresql://broker@127.0.0.1:{port}/broker"}
        for words in (("accounts", "list"), ("migrate",)):
            ended = await command(away, *words)
            assert (ended.status, ended.said) == (1, "")
            assert "The database cannot be used for now: CannotConnectNowError" in ended.complained
            assert ended.complained.count("\n") == 1


async def test_a_broker_that_its_database_breaks_off_from_says_so_in_one_line(
    environment: Mapping[str, str],
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"postgresql://broker@127.0.0.1:{port}/broker"
    away = {**environment, "DATABASE_URL": url, "VALKEY_URL": "redis://127.0.0.1:1"}
    away["BROKER_SECRET_KEY"] = "5e" * 32
    async with server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "broker.cli.main", "serve", "--port", "8999"),
            env=os.environ | away,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, complained = await asyncio.wait_for(process.communicate(), _WITHIN_S)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 1
    assert complained.startswith(b"broker: The database cannot be reached"), complained.decode()
    assert complained.count(b"\n") == 1


@pytest.fixture
async def call(database_url: str, engine: AsyncEngine) -> tuple[UUID, Account, Account]:
    """A call of a consumer that a provider was paid for, a tenth of a cent."""
    shop = await open_account(engine, Role.CONSUMER, "shop")
    gpus = await open_account(engine, Role.PROVIDER, "gpus")
    assert shop.ledger_account is not None
    assert gpus.ledger_account is not None
    connection = await ledger_connection(database_url)
    try:
        await fund(connection, shop.ledger_account, 10_000_000)
        hold = a_hold(shop.ledger_account, 2_000_000)
        await ledger.hold_batch(connection, [hold], PROCESS)
        take = await ledger.take_account(connection, PROCESS)
        capture = a_capture(hold, (gpus.ledger_account, 1_000), recorded=False)
        await ledger.settle_batch(connection, [capture], take)
    finally:
        await connection.close()
    return hold.call_id, shop, gpus


async def test_an_operator_gives_a_part_back_and_sees_it(
    environment: Mapping[str, str], call: tuple[UUID, Account, Account]
) -> None:
    words = ("refunds", "give", str(call[0]), "--reason", "[sorry]", "--amount-usd")
    given = await command(environment, *words, "0.0004")
    assert given.said == "0.0004 USD went back to shop, under CN-shop-000001.\n"
    above = await command(environment, *words, "0.0007")
    assert (above.status, above.complained.count("\n")) == (1, 1)
    listed = (await command(environment, "refunds", "list")).said
    assert f" UTC  0.0004 USD to shop, for call {call[0]}\n" in listed
    assert ", CN-shop-000001: [sorry]\n" in listed


async def test_an_operator_decides_what_is_contested(
    environment: Mapping[str, str], engine: AsyncEngine, call: tuple[UUID, Account, Account]
) -> None:
    call_id, shop, gpus = call
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        asks = Caller(shop.id, shop.name, shop.role)
        dispute = await open_dispute(connection, asks, Request(call_id, "bad"), _TIMES, now)
        await contest(connection, Caller(gpus.id, gpus.name, gpus.role), dispute.id, "good", now)
    listed = await command(environment, "disputes", "list", "--status", "contested")
    assert listed.status == 0
    assert f"{dispute.id}  contested, of call {call_id}\n" in listed.said
    assert "shop asks for 0.001 USD: bad\n" in listed.said
    assert "gpus: contested: good\n" in listed.said
    decided = await command(
        environment, "disputes", "decide", str(dispute.id), "uphold", "--reason", "it was bad"
    )
    assert decided.said == "Decided: 0.001 USD in all went back to shop.\n"
    listed = await command(environment, "disputes", "list")
    assert "  upheld, 0.001 USD went back: it was bad\n" in listed.said


async def test_a_controller_is_chosen_listed_and_ended(
    environment: Mapping[str, str], engine: AsyncEngine, tmp_path: Path
) -> None:
    await open_account(engine, Role.PROVIDER, "acme")
    clock = tmp_path / "nights.json"
    clock.write_text(
        '{"steps": [{"from": "22:00", "factor": 0.6}, {"from": "06:00", "factor": 1}]}'
    )
    late = ("--schedule", str(clock), "--from", "2099-01-01")
    refused = await command(environment, "pricing", "set", "pi", "--param", "kp=1", *late)
    assert (refused.status, "too far ahead" in refused.complained) == (1, True)
    unknown = await command(environment, "pricing", "set", "pi", "--domain", "nosuch")
    assert (unknown.status, "no domain named 'nosuch'" in unknown.complained) == (1, True)
    chosen = await command(
        environment,
        *("pricing", "set", "pi", "--provider", "acme", "--param", "kp=0.3"),
        *("--schedule", str(clock), "--reason", "a try"),
    )
    assert chosen.status == 0, chosen.complained
    choice = chosen.said.split()[0]
    listed = (await command(environment, "pricing", "list")).said
    assert f"{choice}  provider acme: pi (kp=0.3), by the clock, in force\n" in listed
    later = await command(environment, "pricing", "set", "posted", "--provider", "acme")
    listed = (await command(environment, "pricing", "list")).said
    assert f"{choice}  provider acme: pi (kp=0.3), by the clock, set aside by a later one" in listed
    assert f"{later.said.split()[0]}  provider acme: posted, in force\n" in listed
    for each in (choice, later.said.split()[0]):
        assert (await command(environment, "pricing", "end", each)).status == 0
    async with engine.connect() as connection:
        assert await pricing_choices.list_open(connection, datetime.now(UTC)) == []
