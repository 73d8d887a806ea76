"""Makes firm quotes and reads them: what a request would cost, promised for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.call import OpenAiBody, TensorBody
from broker.core.candidates.allowance import narrowed
from broker.core.cascade import SAMPLE, Cascade
from broker.core.catalog import Task
from broker.core.decision import Decision
from broker.core.market import Market
from broker.core.quote import promise
from broker.core.requirements import Requirements
from broker.core.wire.members import LARGE_BYTES
from broker.errors import BrokerError, NotFound, NothingFits, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.calls.decide import refusal, rejections
from broker.flows.calls.plan_cascade import choose_first, plan_cascade
from broker.flows.calls.recognise import goes_by_prompt, look_into, unread
from broker.flows.runtime import Runtime
from broker.store.calls import quotes as quote_store
from broker.store.calls.quotes import Quote
from broker.store.market import endpoint_names

TTL_S_MAX = 300


class Estimate(msgspec.Struct, frozen=True):
    """A request that is not written yet; `wishes` is the `broker` object as JSON."""

    task: Task
    model: str
    wishes: bytes | None = None
    tokens_in: int = 0
    tokens_out_max: int | None = None
    choices: int = 1
    version: str | None = None


class Draft(msgspec.Struct, frozen=True):
    """A request as it would be sent; `body` is JSON."""

    task: Task
    body: bytes


Read = tuple[Requirements, OpenAiBody | TensorBody, Cascade | None]
ReadDemands = Callable[[Estimate | Draft, UUID], Read]
"""Reads what is asked of an endpoint, as the door of a task does, for an account: the demands, the
body, and how it may be answered more than once."""


@dataclass(frozen=True, slots=True)
class MadeQuote:
    """A new quote, and who did not fit."""

    quote: Quote
    names: dict[int, str]
    """Of its endpoints, by number."""
    rejected: list[dict[str, str]]
    """The first of those that did not fit, each with the reason."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Where a call would go now; `refused` is what it would be told where it may go nowhere."""

    wanted: Requirements
    decision: Decision
    market: Market
    refused: BrokerError | None
    cascade: Cascade | None = None
    """Then a decision with a plan is a chain."""


class QuoteDesk:
    """Where quotes are asked for, and what would be decided."""

    def __init__(self, runtime: Runtime, read: ReadDemands) -> None:
        self._runtime = runtime
        self._read = read

    async def make(
        self, connection: AsyncConnection, caller: Caller, asked: Estimate | Draft, ttl_s: int
    ) -> MadeQuote:
        """Decide as for a call, and keep the plan as a promise of `ttl_s` seconds.

        Raises what the same call would be refused with, and TooManyCalls with code
        `quotes_open_max`. What money is worth to a paced budget is that of this moment.
        """
        runtime = self._runtime
        wanted, body, cascade = await self._demands(caller, asked)
        wanted = await self._paced(wanted, caller)
        if cascade is not None and cascade.agreement not in (None, SAMPLE):
            raise RequestMalformed("broker.cascade: a quote takes no agreement with a model.")
        market, known = runtime.market, self._known(wanted, body, cascade)
        known, cascade, decision = choose_first(known, cascade, runtime, counts=False)
        if not decision.plan:
            raise refusal(known, decision, runtime, counts=False)
        if cascade is not None:
            known, decision = plan_cascade(cascade, known, decision, runtime)
        # What its prompt told ends here: the promise has the demands as they were made.
        wanted = msgspec.structs.replace(wanted, model=known.model, skipped=known.skipped)
        promised = promise(wanted, decision, market, cascade)
        rejected = rejections(decision, runtime)
        names = {each.number: market.endpoint(each.number).name for each in decision.plan}
        open_max = runtime.settings.limits.quotes_open_max
        quote = await quote_store.insert(connection, promised, ttl_s, open_max)
        return MadeQuote(quote, names, rejected)

    async def rehearse(self, caller: Caller, asked: Estimate | Draft) -> Rehearsal:
        """Decide as for a call, and do nothing. Raises ModelUnknown, and what reading raises."""
        wanted, body, cascade = await self._demands(caller, asked)
        wanted = self._known(await self._paced(wanted, caller), body, cascade)
        runtime = self._runtime
        wanted, cascade, decision = choose_first(wanted, cascade, runtime, counts=False)
        refused = None if decision.plan else refusal(wanted, decision, runtime, counts=False)
        if cascade is not None and refused is None:
            try:
                wanted, decision = plan_cascade(cascade, wanted, decision, runtime)
            except NothingFits as error:
                refused = error
        return Rehearsal(wanted, decision, runtime.market, refused, cascade)

    async def read(
        self, connection: AsyncConnection, caller: Caller, quote_id: UUID
    ) -> tuple[Quote, dict[int, str]]:
        """Return the caller's quote and its endpoints' names by number. Raises NotFound."""
        quote = await quote_store.find(connection, quote_id, caller.account_id)
        if quote is None:
            raise NotFound("There is no such quote.", code="quote_unknown")
        numbers = [each.number for each in quote.promise.offers]
        found = await endpoint_names.by_numbers(connection, numbers)
        return quote, {number: each.name for number, each in found.items()}

    def _known(
        self, wanted: Requirements, body: OpenAiBody | TensorBody, cascade: Cascade | None
    ) -> Requirements:
        """Return what is asked for with what the prompt tells; an estimate has none."""
        if not goes_by_prompt(wanted, cascade):
            return wanted
        if not isinstance(body, OpenAiBody):
            return unread(wanted, self._runtime)
        return look_into(body, wanted, self._runtime)

    async def _paced(self, wanted: Requirements, caller: Caller) -> Requirements:
        if not wanted.paced:
            return wanted
        return await self._runtime.pacer.pace(wanted, caller.key_id, self._runtime.clock())

    async def _demands(self, caller: Caller, asked: Estimate | Draft) -> Read:
        if isinstance(asked, Draft) and len(asked.body) > LARGE_BYTES:
            # What it is made of may take a while, in which calls are served.
            read = await asyncio.to_thread(self._read, asked, caller.account_id)
        else:
            read = self._read(asked, caller.account_id)
        wanted, body, cascade = read
        if caller.terms is not None and caller.terms.explore is False:
            wanted = msgspec.structs.replace(wanted, explore=False)
        if caller.terms is not None and caller.terms.allowance is not None:
            wanted = narrowed(wanted, caller.terms.allowance, self._runtime.market)
        return wanted, body, cascade
