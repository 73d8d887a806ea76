"""Says why a hold is refused, in sentences and in figures."""

from __future__ import annotations

import structlog

from broker.core.ledger import Hold
from broker.errors import BalanceTooLow, BrokerError, BudgetTooLow
from broker.store.books.budgets import BudgetKind, BudgetStanding
from pricing.money import format_usd

_PERIODS = {
    BudgetKind.DAY: "for the day (UTC)",
    BudgetKind.MONTH: "for the month (UTC)",
    BudgetKind.TOTAL: "in total",
}

_log = structlog.get_logger()


def no_account(hold: Hold) -> BrokerError:
    """The ledger account does not exist: the books or the keys are at fault, not the caller."""
    _log.error("ledger_account_missing", account=str(hold.account), call_id=str(hold.call_id))
    return BrokerError("The account has no funds account.", code="ledger_account_missing")


def beyond_all(hold: Hold) -> BalanceTooLow:
    """The amount is more than a ledger can count."""
    needed = format_usd(hold.amount_nanos)
    return BalanceTooLow(f"This call may cost up to {needed} USD, more than any balance holds.")


def too_low(hold: Hold, available_nanos: int) -> BalanceTooLow:
    """The account has not enough left."""
    needed, available = format_usd(hold.amount_nanos), format_usd(available_nanos)
    return BalanceTooLow(
        f"This call may cost up to {needed} USD, and {available} USD are available.",
        facts={"needed_usd": needed, "available_usd": available},
    )


def budget_exceeded(hold: Hold, budget: BudgetStanding) -> BudgetTooLow:
    """What is spent leaves no room, whatever becomes of the calls under way."""
    facts = _facts(hold, budget)
    return BudgetTooLow(
        f"This call may cost up to {facts['needed_usd']} USD; the key's budget of"
        f" {facts['limit_usd']} USD {_PERIODS[budget.kind]} has {facts['spent_usd']} USD spent.",
        facts=facts,
    )


def budget_held(hold: Hold, budget: BudgetStanding) -> BudgetTooLow:
    """Calls under way hold what this one needs, and have not ended in time."""
    facts = _facts(hold, budget)
    return BudgetTooLow(
        f"This call may cost up to {facts['needed_usd']} USD; of the key's budget of"
        f" {facts['limit_usd']} USD {_PERIODS[budget.kind]}, calls under way hold"
        f" {facts['held_usd']} USD.",
        code="budget_held",
        facts=facts,
    )


def _facts(hold: Hold, budget: BudgetStanding) -> dict[str, str]:
    return {
        "budget": budget.kind.value,
        "limit_usd": format_usd(budget.limit_nanos or 0),
        "spent_usd": format_usd(budget.spent_nanos),
        "held_usd": format_usd(budget.held_nanos),
        "needed_usd": format_usd(hold.amount_nanos),
    }
