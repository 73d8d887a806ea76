"""Moves money between the world and an account by an operator's word: top-ups and adjustments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from broker.errors import Conflict, NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access.accounts import Account, Role
from broker.store.books import transfers
from broker.store.books.statements import Balance, read_balance
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.money.purses import purse_of
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import MAX_AMOUNT_NANOS, format_usd

BALANCE_MAX_NANOS: Final = 4 * MAX_AMOUNT_NANOS
"""No account's balance may pass this: what fits a BIGINT twice over."""
WORLD_MAX_NANOS: Final = 9 * MAX_AMOUNT_NANOS
"""All the money that the market can take in, for the world's balance is a BIGINT too."""
REASON_MAX_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants moved; below zero it goes from the account to the world."""

    account_name: str
    amount_nanos: int
    reason: str
    kind: TransferKind = TransferKind.TOPUP


async def top_up(
    engine: AsyncEngine,
    author: Caller,
    account_name: str,
    amount_nanos: int,
    reason: str,
    now: datetime,
) -> Balance:
    """Credit a consumer's funds; return the new balance. Raises as `move` does."""
    order = Order(account_name, amount_nanos, reason)
    async with engine.begin() as connection:
        return await move(connection, author, order, now)


async def adjust(
    engine: AsyncEngine,
    author: Caller,
    account_name: str,
    amount_nanos: int,
    reason: str,
    now: datetime,
) -> Balance:
    """Correct a consumer's or provider's balance, up or down; return it. Raises as `move` does."""
    order = Order(account_name, amount_nanos, reason, TransferKind.ADJUSTMENT)
    async with engine.begin() as connection:
        return await move(connection, author, order, now)


async def move(connection: AsyncConnection, author: Caller, order: Order, now: datetime) -> Balance:
    """Post the transfer with its audit entry in the caller's transaction; return the new balance.

    Doing it once under an `Idempotency-Key` is `broker.flows.access.once`'s affair. Raises
    NotAllowed unless the author is an operator; RequestMalformed with code `amount_out_of_bounds`,
    `reason_missing`, `reason_too_long` or `not_funds`; NotFound for an account that is unknown or
    has no balance; Conflict for a top-up of a closed one; BalanceTooLow when an adjustment takes
    more than is available.
    """
    if author.role is not Role.OPERATOR:
        raise NotAllowed("Only an operator moves money by hand.")
    _check(order)
    account = await account_store.by_name(connection, order.account_name)
    ledger_account = account.ledger_account
    if ledger_account is None:
        raise NotFound("An operator has no balance.")
    if account.role is Role.PROVIDER:
        # Not what is pending: that is what calls earned, and matures with them.
        ledger_account = (await purse_of(connection, account.id)).available
    _check_fits(order, account, await read_balance(connection, ledger_account))
    world = await transfers.world(connection)
    await _check_world(connection, world, order)
    inward = order.amount_nanos > 0
    transfer = Transfer(
        id=uuid7(),
        debit=world if inward else ledger_account,
        credit=ledger_account if inward else world,
        amount_nanos=abs(order.amount_nanos),
        kind=order.kind,
        reason=order.reason,
        author=author.name,
        created_at=now,
    )
    await transfers.post(connection, transfer)
    detail = {"amount_usd": format_usd(order.amount_nanos), "transfer": str(transfer.id)}
    if order.reason:
        detail["reason"] = order.reason
    deed = audit.Deed(author.name, order.kind.value, f"accounts/{account.name}", detail)
    await audit.record(connection, deed, now)
    target = f"transfers/{transfer.id}"
    event = Event(f"{order.kind.value}.posted", target, account.id, detail)
    await events.tell(connection, event, now)
    return await read_balance(connection, ledger_account)


def _check(order: Order) -> None:
    if order.kind is TransferKind.TOPUP and order.amount_nanos <= 0:
        raise RequestMalformed(
            "A top-up is above zero; an adjustment takes money away.",
            code="amount_out_of_bounds",
        )
    if order.amount_nanos == 0 or abs(order.amount_nanos) > MAX_AMOUNT_NANOS:
        raise RequestMalformed(
            f"An amount is not zero and at most {format_usd(MAX_AMOUNT_NANOS)} USD.",
            code="amount_out_of_bounds",
        )
    if order.kind is TransferKind.ADJUSTMENT and not order.reason.strip():
        raise RequestMalformed("An adjustment needs a reason.", code="reason_missing")
    if len(order.reason) > REASON_MAX_CHARACTERS:
        raise RequestMalformed(
            f"A reason has at most {REASON_MAX_CHARACTERS} characters.", code="reason_too_long"
        )


def _check_fits(order: Order, account: Account, balance: Balance) -> None:
    if order.kind is TransferKind.TOPUP and account.role is not Role.CONSUMER:
        raise RequestMalformed("Only a consumer's funds are topped up.", code="not_funds")
    if order.kind is TransferKind.TOPUP and account.closed_at is not None:
        raise Conflict(f"'{account.name}' is closed: only an adjustment moves its balance.")
    if balance.posted_nanos + order.amount_nanos > BALANCE_MAX_NANOS:
        raise RequestMalformed(
            f"A balance is at most {format_usd(BALANCE_MAX_NANOS)} USD.",
            code="amount_out_of_bounds",
        )


async def _check_world(connection: AsyncConnection, world: UUID, order: Order) -> None:
    taken_in = -(await read_balance(connection, world)).posted_nanos
    if abs(taken_in + order.amount_nanos) > WORLD_MAX_NANOS:
        raise RequestMalformed(
            f"The market takes in at most {format_usd(WORLD_MAX_NANOS)} USD.",
            code="amount_out_of_bounds",
        )
