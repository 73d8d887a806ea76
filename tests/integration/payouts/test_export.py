"""The file for the bank fits its schema, names each payment for good, and holds what is open."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from uuid import UUID
from xml.etree import ElementTree

import pytest
from uuid_utils.compat import uuid7

from broker.core.money.payout import Bank, Destination, Stripe
from broker.errors import BrokerError, Conflict, NotFound, RequestMalformed, SettingInvalid
from broker.flows.money.export_payouts import Export, File, Format, export
from broker.flows.money.payout_events import Word, confirm, fail
from broker.outbound import bank_account, pain001
from broker.outbound.pain001 import Credit, FileInvalid
from broker.settings import Payouts
from broker.store.money.payouts import Payout
from tests.integration.payouts.till import BANK, SEALER, Till

DEBTOR = Payouts("Model Broker & Co", "GB82 WEST 1234 5698 7654 32", "WESTGB22")
SPACE = {"p": f"urn:iso:std:iso:20022:tech:xsd:{pain001.SCHEMA}"}
STRIPE = Stripe("acct_1a2b3c4d5e6f7g8h")


async def paid(till: Till, name: str, nanos: int, destination: Destination = BANK) -> Payout:
    provider = await till.provider(name, destination)
    await till.adjust(provider, nanos)
    return await till.pay(provider)


async def together(till: Till, *made: Payout) -> UUID:
    """Put payouts into one batch, as one run over several providers does."""
    await till.driver.execute("SET session_replication_role = replica")
    await till.driver.execute("UPDATE payouts SET batch_id = $1", made[0].batch_id)
    await till.driver.execute("SET session_replication_role = DEFAULT")
    return made[0].batch_id


async def write(
    till: Till,
    batch_id: UUID,
    kind: Format = Format.PAIN001,
    settings: Payouts = DEBTOR,
    later: timedelta = timedelta(0),
) -> File:
    wanted = Export(batch_id, kind, "office")
    async with till.engine.begin() as connection:
        return await export(connection, wanted, (SEALER, settings), datetime.now(UTC) + later)


def texts(content: bytes, path: str) -> list[str | None]:
    return [each.text for each in ElementTree.fromstring(content).findall(f".//{path}", SPACE)]


async def test_a_batch_is_written_as_pain_001(till: Till) -> None:
    first = await paid(till, "acme", 1_234_560_000_001)
    second = await paid(till, "globex", 10_000_000, Bank("Müller", "FR1420041010050500013M02606"))
    file = await write(till, await together(till, first, second))
    amounts = ElementTree.fromstring(file.content).findall(".//p:InstdAmt", SPACE)
    assert [(each.text, each.attrib) for each in amounts] == [
        ("1234.56", {"Ccy": "USD"}),
        ("0.01", {"Ccy": "USD"}),
    ]
    assert texts(file.content, "p:GrpHdr/p:CtrlSum") == ["1234.57"]
    assert texts(file.content, "p:EndToEndId") == [first.id.hex, second.id.hex]
    assert texts(file.content, "p:MsgId") == [first.batch_id.hex]
    assert texts(file.content, "p:CdtrAcct//p:IBAN") == [BANK.iban, "FR1420041010050500013M02606"]
    assert texts(file.content, "p:DbtrAcct//p:IBAN") == ["GB82WEST12345698765432"]
    assert texts(file.content, "p:SvcLvl") == []
    assert file.name == f"payouts-{first.batch_id}.xml"


async def test_a_file_written_again_is_the_same_message(till: Till) -> None:
    payout = await paid(till, "acme", 90_000_000)
    first = await write(till, payout.batch_id)
    again = await write(till, payout.batch_id, later=timedelta(days=3))
    assert again == first


async def test_only_what_is_open_is_written(till: Till) -> None:
    made = [await paid(till, name, 90_000_000) for name in ("acme", "globex", "initech")]
    batch_id = await together(till, *made)
    now = datetime.now(UTC)
    async with till.engine.begin() as connection:
        await fail(connection, made[0].id, Word("office", "no such account"), now)
        await confirm(connection, made[1].id, Word("office"), now)
    file = await write(till, batch_id, Format.CSV)
    assert [each.id for each in made if str(each.id) in file.content.decode()] == [made[2].id]
    async with till.engine.begin() as connection:
        await confirm(connection, made[2].id, Word("office"), now)
    with pytest.raises(Conflict) as caught:
        await write(till, batch_id)
    assert caught.value.code == "nothing_to_export"


async def test_a_batch_is_written_as_csv(till: Till) -> None:
    payout = await paid(till, "acme", 90_000_000)
    file = await write(till, payout.batch_id, Format.CSV)
    assert list(csv.DictReader(io.StringIO(file.content.decode()))) == [
        {
            "payout": str(payout.id),
            "provider": "acme",
            "number": "1",
            "amount_usd": "0.09",
            "holder": BANK.holder,
            "account": BANK.iban,
            "bic": BANK.bic,
        }
    ]
    exported = await till.driver.fetchval("SELECT exported_at FROM payout_batches")
    assert exported is not None


async def test_a_batch_for_stripe_is_no_message_to_a_bank(till: Till) -> None:
    payout = await paid(till, "acme", 90_000_000, STRIPE)
    with pytest.raises(Conflict) as caught:
        await write(till, payout.batch_id)
    assert caught.value.code == "not_for_a_bank"
    assert STRIPE.account in (await write(till, payout.batch_id, Format.CSV)).content.decode()


async def test_without_an_account_to_pay_from_nothing_is_written(till: Till) -> None:
    payout = await paid(till, "acme", 90_000_000)
    with pytest.raises(SettingInvalid) as caught:
        await write(till, payout.batch_id, settings=Payouts())
    assert caught.value.code == "payout_account_missing"
    with pytest.raises(NotFound):
        await write(till, uuid7())


def test_what_does_not_fit_the_schema_is_not_handed_out() -> None:
    credit = Credit(uuid7(), Bank("Acme", "not an account"), 100, "Payout 1")
    with pytest.raises(FileInvalid):
        pain001.write(uuid7(), datetime.now(UTC), BANK, [credit])


@pytest.mark.parametrize(
    ("account", "code"),
    [
        (Bank("", BANK.iban), "holder_invalid"),
        (Bank("=1+1", BANK.iban), "holder_invalid"),
        (Bank("x" * 71, BANK.iban), "holder_invalid"),
        (Bank("Acme\x00", BANK.iban), "holder_invalid"),
        (Bank("Acme", ""), "iban_invalid"),
        (Bank("Acme", "DE88370400440532013000"), "iban_invalid"),
        (Bank("Acme", "DE8937040044053201300"), "iban_invalid"),
        (Bank("Acme", "US64SVBKUS6S3300958879"), "iban_invalid"),
        (Bank("Acme", BANK.iban, "NONSENSE!"), "bic_invalid"),
    ],
)
def test_a_wrong_account_is_refused_by_name(account: Bank, code: str) -> None:
    with pytest.raises(RequestMalformed) as caught:
        bank_account.checked(account)
    error: BrokerError = caught.value
    assert error.code == code


def test_an_account_is_kept_as_banks_write_it() -> None:
    given = Bank("  Acme   Ltd ", "de89 3704 0044 0532 0130 00", "cobadeffxxx")
    assert bank_account.checked(given) == Bank("Acme Ltd", BANK.iban, "COBADEFFXXX")
