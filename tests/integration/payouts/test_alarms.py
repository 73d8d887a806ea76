"""Every tampered record of payouts raises an alarm."""

from __future__ import annotations

from datetime import UTC, datetime

from broker.flows.money.payout_events import Word, confirm
from broker.store.access.accounts import Account
from broker.store.books import invariants
from tests.integration.payouts.till import Till

ITEMS, PAID = "invariant_payout_is_its_items", "invariant_item_is_what_it_pays"
TRANSIT, TRANSFERS = "invariant_transit_is_open_payouts", "invariant_payout_is_its_transfers"
UNMATURED, UNPAID = "invariant_earnings_are_unmatured", "replay_available_is_unpaid"
OLD, OLD_ITEM = "replay_payout_is_its_records", "replay_item_is_what_it_pays"
MONEY = {"invariant_books_sum_to_zero", "invariant_balance_is_its_entries"}
REPLAYED = {"replay_balance_is_its_entries"}
PURSE = "WHERE ledger_account_id = (SELECT id FROM ledger_accounts WHERE kind = "

TAMPERING = {
    "UPDATE payouts SET amount_nanos = amount_nanos + 10000000 WHERE number = 2": {
        *(ITEMS, TRANSIT, TRANSFERS, OLD),
    },
    "UPDATE payouts SET status = 'sent' WHERE number = 2": {TRANSIT, TRANSFERS, OLD},
    "UPDATE payouts SET status = 'returned' WHERE number = 1": {OLD},
    "DELETE FROM payout_items WHERE carried_from IS NOT NULL": {ITEMS, UNPAID, OLD},
    "UPDATE payout_items SET amount_nanos = amount_nanos + 1 WHERE transfer_id IS NOT NULL": {
        *(ITEMS, PAID, OLD, OLD_ITEM),
    },
    "UPDATE payout_items SET transfer_id = (SELECT id FROM transfers WHERE kind = 'payout_sent')"
    " WHERE transfer_id = (SELECT id FROM transfers WHERE kind = 'maturity' LIMIT 1)": {
        *(OLD_ITEM, UNPAID),
    },
    "UPDATE maturities SET matured_before = (SELECT min(sealed_before) FROM seal_periods)": {
        *(UNMATURED, "replay_earnings_are_unmatured"),
    },
    f"UPDATE balances SET posted_nanos = posted_nanos + 1 {PURSE}'transit')": {
        *(*MONEY, *REPLAYED, TRANSIT),
    },
    f"UPDATE balances SET posted_nanos = posted_nanos + 1 {PURSE}'available')": {
        *(*MONEY, *REPLAYED, UNPAID),
    },
    f"UPDATE balances SET posted_nanos = posted_nanos + 1 {PURSE}'earnings')": {
        *(*MONEY, *REPLAYED, "replay_earnings_are_unmatured"),
    },
}


async def test_every_tampered_record_raises_an_alarm(till: Till, acme: Account) -> None:
    for tokens in (15_000, 21_000):
        await till.earn(acme, tokens)
        await till.days_pass(2)
        await till.mature(acme)
        payout = await till.pay(acme)
        if payout.number == 1:
            async with till.engine.begin() as connection:
                await confirm(connection, payout.id, Word("office"), datetime.now(UTC))
    await till.earn(acme, 9_000)
    for statement, views in TAMPERING.items():
        assert await alarms_after(till, statement) == views, statement


async def alarms_after(till: Till, statement: str) -> set[str]:
    """Return the views that have rows after a statement, which is undone again."""
    async with till.engine.connect() as inside:
        await inside.exec_driver_sql("SET session_replication_role = replica")
        changed = await inside.exec_driver_sql(statement)
        assert changed.rowcount
        names = await invariants.view_names(inside, "invariant_")
        names += await invariants.view_names(inside, "replay_")
        found = {name for name in names if await invariants.alarms_of(inside, name)}
        await inside.rollback()
    return found
