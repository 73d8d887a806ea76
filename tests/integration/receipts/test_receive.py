"""Only what a deployment's own key signed is kept, and once; forgeries and replays are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
from typer.testing import CliRunner
from uuid_utils.compat import uuid7

from broker.cli.cases import app as cases_command
from broker.flows.access.authenticate import Caller
from broker.flows.receipts.receive_receipts import FORMER_KEY_GOOD, LATE_MAX, receive
from broker.store.access.accounts import Role
from broker.store.receipts.receipt_horizon import least_id_at
from provider_sdk.client import BrokerClient, BrokerRefused
from provider_sdk.protocol import ReceiptBatch, SignedReceipt
from provider_sdk.receipt_key import KeyFile, ReceiptKey
from provider_sdk.signing import claim_message, receipt_message
from tests.integration.gateway.house import House
from tests.integration.receipts.workshop import Workshop, sign

Forge = Callable[[Workshop, ReceiptKey], SignedReceipt]


def _altered(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    signed = sign(workshop.receipt(uuid7()), key)
    text = signed.receipt_json.replace('"tokens_out":20', '"tokens_out":99')
    return msgspec.structs.replace(signed, receipt_json=text)


def _by_another_key(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    stranger = KeyFile(workshop.keys.path.with_name("stranger.pem")).key()
    return sign(workshop.receipt(uuid7()), stranger, key_id=key.id)


def _by_an_unknown_key(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    stranger = KeyFile(workshop.keys.path.with_name("stranger.pem")).key()
    return sign(workshop.receipt(uuid7()), stranger)


def _of_another_deployment(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    return sign(workshop.receipt(uuid7(), deployment_id=str(uuid7())), key)


def _relabelled(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    other = sign(workshop.receipt(uuid7(), deployment_id=str(uuid7())), key)
    return msgspec.structs.replace(other, deployment_id=workshop.deployment_id)


def _of_no_call(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    return sign(workshop.receipt(uuid4()), key)


def _of_tomorrow(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    return sign(workshop.receipt(least_id_at(datetime.now(UTC) + timedelta(days=1))), key)


def _of_the_year_ten_thousand(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    return sign(workshop.receipt(UUID(int=0xFFFFFFFFFFFF << 80 | 0x7 << 76 | 0x2 << 62)), key)


def _of_last_week(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    old = least_id_at(datetime.now(UTC) - LATE_MAX - timedelta(minutes=1))
    return sign(workshop.receipt(old), key)


def _with_a_nul(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    return sign(workshop.receipt(uuid7(), model="a\0b"), key)


def _of_other_fields(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    text = '{"tokens_out": "many"}'
    signature = key.sign(receipt_message(text))
    honest = sign(workshop.receipt(uuid7()), key)
    return msgspec.structs.replace(honest, receipt_json=text, signature=signature)


def _with_half_a_character(workshop: Workshop, key: ReceiptKey) -> SignedReceipt:
    text = msgspec.json.encode(workshop.receipt(uuid7())).decode().replace("lawyer", "\\ud800")
    signature = key.sign(receipt_message(text))
    honest = sign(workshop.receipt(uuid7()), key)
    return msgspec.structs.replace(honest, receipt_json=text, signature=signature)


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (_altered, "bad_signature"),
        (_by_another_key, "bad_signature"),
        (_by_an_unknown_key, "unknown_key"),
        (_of_another_deployment, "foreign"),
        (_relabelled, "foreign"),
        (_of_no_call, "malformed"),
        (_of_tomorrow, "malformed"),
        (_of_the_year_ten_thousand, "malformed"),
        (_of_last_week, "too_late"),
        (_with_a_nul, "malformed"),
        (_of_other_fields, "malformed"),
        (_with_half_a_character, "malformed"),
    ],
)
async def test_what_is_not_as_it_should_be_is_not_kept_and_hinders_no_other(
    workshop: Workshop, forge: Forge, reason: str
) -> None:
    key = workshop.keys.key()
    honest = uuid7()
    bad, good = await workshop.send(forge(workshop, key), sign(workshop.receipt(honest), key))
    assert (bad.kept, bad.reason) == (False, reason)
    assert good.kept
    assert await workshop.has_receipt(honest)


async def test_what_comes_again_is_kept_once_and_another_text_for_it_is_refused(
    workshop: Workshop,
) -> None:
    key, call_id = workshop.keys.key(), uuid7()
    receipt = workshop.receipt(call_id)
    signed = sign(receipt, key)
    again = msgspec.structs.replace(workshop.receipt(call_id), tokens_out=21)
    elsewhere = workshop.receipt(uuid7(), sequence=receipt.sequence)
    second = workshop.receipt(call_id, attempt=1)
    results = await workshop.send(signed, signed)
    assert [(each.kept, each.reason) for each in results] == [(True, ""), (True, "duplicate")]
    results = await workshop.send(signed, sign(again, key), sign(elsewhere, key), sign(second, key))
    assert [each.reason for each in results] == ["duplicate", "contradicts", "sequence_reused", ""]
    texts = [each["receipt_json"] for each in await workshop.receipts(call_id)]
    assert texts == [signed.receipt_json, sign(second, key).receipt_json]


async def test_a_provider_brings_receipts_of_its_own_deployments_only(
    workshop: Workshop, house: House
) -> None:
    signed = sign(workshop.receipt(uuid7()), workshop.keys.key())
    async with BrokerClient(house.url, await house.key("rival", Role.PROVIDER)) as rival:
        reply = await rival.receipts(ReceiptBatch(receipts=[signed]))
        assert [each.reason for each in reply.results] == ["unknown_key"]
        offer = workshop.keys.key().offer(workshop.deployment_id, None)
        with pytest.raises(BrokerRefused) as refused:
            await rival.receipt_key(workshop.deployment_id, offer)
        assert refused.value.status == 404
    for role in (Role.OPERATOR, Role.CONSUMER):
        async with BrokerClient(house.url, await house.key(f"a-{role}", role)) as other:
            with pytest.raises(BrokerRefused) as refused:
                await other.receipts(ReceiptBatch(receipts=[signed]))
            assert refused.value.status == 403


async def test_a_receipt_is_shown_to_its_provider_and_to_operators(
    workshop: Workshop, house: House
) -> None:
    call_id = uuid7()
    await workshop.send(sign(workshop.receipt(call_id), workshop.keys.key()))
    for name, expected in (("acme", 1), ("rival", 0)):
        http = house.client(await house.key(name, Role.PROVIDER))
        shown = (await http.get(f"/api/calls/{call_id}/receipts")).raise_for_status().json()
        assert len(shown["receipts"]) == expected


async def test_cases_are_seen_by_whom_they_concern_and_closed_once_by_an_operator(
    workshop: Workshop, house: House
) -> None:
    call_id = uuid7()
    await workshop.send(sign(workshop.receipt(call_id), workshop.keys.key()))
    await workshop.reconcile()
    own = house.client(await house.key("acme", Role.PROVIDER))
    rival = house.client(await house.key("rival", Role.PROVIDER))
    [seen] = [
        each
        for each in (await own.get("/api/cases")).json()["cases"]
        if each["call_id"] == str(call_id)
    ]
    assert seen["meaning"].startswith("A receipt is of a call")
    assert (await rival.get("/api/cases?status=all")).json()["cases"] == []
    close = f"/api/cases/{seen['id']}/close"
    assert (await own.post(close, json={"reason": "please"})).status_code == 403
    for body in ({"reason": " "}, {"reason": "x" * 501}, {"reason": "a\x00b"}, {}):
        assert (await house.operator.post(close, json=body)).status_code == 400
    missing = f"/api/cases/{uuid7()}/close"
    assert (await house.operator.post(missing, json={"reason": "x"})).status_code == 404
    closed = await house.operator.post(close, json={"reason": "a test of theirs"})
    assert closed.status_code == 200
    assert (closed.json()["closed_by"], closed.json()["close_reason"]) == (
        "operator",
        "a test of theirs",
    )
    again = await house.operator.post(close, json={"reason": "once more"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    deeds = await house.database.fetch(
        "SELECT author, detail FROM audit_log WHERE action = 'close_receipt_case' AND object = $1",
        f"receipt_cases/{seen['id']}",
    )
    assert [each["author"] for each in deeds] == ["operator"]
    assert "a test of theirs" in deeds[0]["detail"]
    assert not await workshop.reconcile(), "a closed case stays closed"


async def test_an_operator_sees_and_closes_cases_from_the_command_line(
    house: House, workshop: Workshop
) -> None:
    async def broker(*words: str) -> tuple[int, str]:
        # In a thread of its own, for a command runs its own event loop.
        runner = CliRunner(env={"DATABASE_URL": house.database_url})
        ended = await asyncio.to_thread(runner.invoke, cases_command, words)
        return ended.exit_code, ended.output

    call_id = uuid7()
    await workshop.send(sign(workshop.receipt(call_id), workshop.keys.key()))
    await workshop.reconcile()
    status, said = await broker("list")
    assert status == 0, said
    [line] = [each for each in said.splitlines() if str(call_id) in each]
    case_id = line.split()[0]
    assert (await broker("close", case_id, "--reason", " "))[0] == 1
    assert await broker("close", case_id, "--reason", "a test") == (0, f"{case_id} is closed.\n")
    assert str(call_id) not in (await broker("list"))[1]
    status, said = await broker("list", "--status", "closed")
    assert "closed by command-line: a test" in said


async def test_a_key_must_prove_itself_and_stays_for_what_it_signed(
    workshop: Workshop, house: House, tmp_path: Path
) -> None:
    key, other = workshop.keys.key(), KeyFile(tmp_path / "other.pem").key()
    stolen = msgspec.structs.replace(
        key.offer(workshop.deployment_id, None), signature=other.sign(b"something else")
    )
    elsewhere = other.offer(str(uuid7()), None)
    unendorsed = msgspec.structs.replace(
        other.offer(workshop.deployment_id, key), endorsement=other.sign(b"not the former key")
    )
    for offer, code in (
        (stolen, "bad_signature"),
        (elsewhere, "request_malformed"),
        (unendorsed, "bad_signature"),
    ):
        with pytest.raises(BrokerRefused) as refused:
            await workshop.client.receipt_key(workshop.deployment_id, offer)
        assert (refused.value.status, refused.value.code) == (400, code)
    known = await workshop.client.receipt_key(
        workshop.deployment_id, key.offer(workshop.deployment_id, None)
    )
    assert known.key_id == key.id
    assert await house.database.fetchval("SELECT count(*) FROM receipt_keys") == 1


async def test_a_key_is_rotated_and_the_former_one_ends_what_was_on_its_way(
    workshop: Workshop, house: House, tmp_path: Path
) -> None:
    file = KeyFile(tmp_path / "second.pem")
    former, new = workshop.keys.key(), file.key()
    offer = new.offer(workshop.deployment_id, former)
    assert former.sign(claim_message(offer.claim_json)) == offer.endorsement
    kept = await workshop.client.receipt_key(workshop.deployment_id, offer)
    assert (kept.key_id, kept.endorsed) == (new.id, True)
    by_both = [sign(workshop.receipt(uuid7()), key) for key in (former, new)]
    assert [each.kept for each in await workshop.send(*by_both)] == [True, True]
    owner = await house.database.fetchval("SELECT id FROM accounts WHERE name = 'acme'")
    caller = Caller(UUID(str(owner)), "acme", Role.PROVIDER)
    later = datetime.now(UTC) + FORMER_KEY_GOOD + timedelta(minutes=1)
    batch = ReceiptBatch(receipts=[sign(workshop.receipt(uuid7()), key) for key in (former, new)])
    reply = await receive(house.engine, caller, batch, later)
    assert [each.reason for each in reply.results] == ["unknown_key", ""]
    back = former.offer(workshop.deployment_id, new)
    with pytest.raises(BrokerRefused, match="was retired") as refused:
        await workshop.client.receipt_key(workshop.deployment_id, back)
    assert refused.value.status == 409
    deeds = await house.database.fetch(
        "SELECT detail FROM audit_log WHERE action = 'register_receipt_key' ORDER BY id"
    )
    assert [msgspec.json.decode(each["detail"])["endorsed"] for each in deeds] == [False, True]


async def test_the_statement_of_a_provider_says_whether_its_deployments_sign_receipts(
    workshop: Workshop, house: House
) -> None:
    own = house.client(await house.key("acme", Role.PROVIDER))
    [told] = (await own.get("/api/statement")).json()["receipts"]
    assert told["receipts"].startswith("signed with the key ")
    cases = (await own.get("/api/cases?status=open")).json()["cases"]
    assert told["cases_open"] == len(cases)
    path = f"/api/provider/deployments/{workshop.deployment_id}/receipt-key"
    for _ in range(2):
        assert (await own.delete(path)).status_code == 204
    [told] = (await own.get("/api/statement")).json()["receipts"]
    assert (told["deployment"], told["since"]) == ("gpu1", None)
    assert told["receipts"].startswith("none: the agent does not front this server, or has no")
