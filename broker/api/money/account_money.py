"""Balance and statement of any account, for operators: what its owner is told."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.params import FromPath

from broker.api.callers import OPERATORS
from broker.api.long_reads import LONG_AS_TABLE
from broker.api.money.balance import (
    PAGE,
    BalanceShown,
    GivenPage,
    Statement,
    balance_shown,
    tell_statement,
)
from broker.api.parts import CallerRequest, GivenEngine
from broker.api.tables import AskedForm, form_of
from broker.api.wire import GivenStretch
from broker.flows.money import statement as statements


class AccountMoneyController(Controller):
    """`/api/accounts/{name}/balance` and `/api/accounts/{name}/statement`"""

    path = "/accounts/{name:str}"
    guards = (OPERATORS,)
    tags = ("Accounts",)

    @get("/balance", summary="An account's balance")
    async def balance(self, name: FromPath[str], engine: GivenEngine) -> BalanceShown:
        owner = await statements.owner(engine, name)
        return balance_shown(await statements.balance(engine, owner))

    @get(
        "/statement",
        summary="What moved an account's balance",
        dependencies={**PAGE, **LONG_AS_TABLE},
    )
    async def statement(
        self,
        name: FromPath[str],
        request: CallerRequest,
        engine: GivenEngine,
        stretch: GivenStretch,
        page: GivenPage,
        form: AskedForm = None,
    ) -> Statement | Response[str]:
        """As JSON page by page, newest first; as CSV all of it, oldest first."""
        owner = await statements.owner(engine, name)
        return await tell_statement(engine, owner, stretch, page, form_of(request, form))
