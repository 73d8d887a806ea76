"""`/api/earnings`: what a provider has earned, and how long an operator lets it wait."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get, put
from litestar.params import FromPath, JSONBody, QueryParameter

from broker.api.callers import OPERATORS, allow
from broker.api.money.payout_messages import (
    DelayWanted,
    EarningsShown,
    TermsShown,
    earnings_shown,
    terms_shown,
)
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime
from broker.flows.money.payout_terms import set_delay
from broker.flows.money.read_earnings import read_earnings
from broker.flows.money.read_payouts import concerned
from broker.store.access.accounts import Role

PAYEES = allow(Role.PROVIDER, Role.OPERATOR)
ProviderName = Annotated[
    str | None, QueryParameter(description="For operators: the provider's name.")
]


class EarningsController(Controller):
    """`/api/earnings`"""

    path = "/earnings"
    tags = ("Payouts",)

    @get(guards=[PAYEES], summary="What is pending, available, on its way and owed")
    async def earnings(
        self,
        parts: GivenParts,
        caller: GivenCaller,
        now: GivenTime,
        provider: ProviderName = None,
    ) -> EarningsShown:
        whose = await concerned(parts.engine, caller, provider)
        return earnings_shown(
            await read_earnings(parts.engine, whose, parts.settings.maturity, now)
        )

    @put("/{name:str}/delay", guards=[OPERATORS], summary="Set how long earnings wait")
    async def delay(
        self,
        name: FromPath[str],
        data: JSONBody[DelayWanted],
        caller: GivenCaller,
        engine: GivenEngine,
        now: GivenTime,
    ) -> TermsShown:
        async with engine.begin() as connection:
            return terms_shown(await set_delay(connection, caller, name, data.days, now))
