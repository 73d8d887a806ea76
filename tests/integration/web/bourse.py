"""A market with providers, prices and calls in a real database, by the broker's own means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core import ledger as recipes
from broker.core import story
from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Endpoint, ListingStatus, Task
from broker.core.decision import Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.ledger import CallRecord, ChargeLine, Hold
from broker.core.market import Market, Presence, build_market
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from broker.settings import Settings
from broker.store import ledger
from broker.store.access import accounts, keys
from broker.store.access.accounts import Account, Role
from broker.store.access.keys import KeyTerms
from broker.store.market import catalog, deployments, listing, prices
from broker.store.sealing import Sealer
from pricing.book import PriceBook
from provider_sdk.protocol import DeploymentOffer, EndpointOffer, ProbeReport, TokenBand

SEALER = Sealer("ab" * 32)
TAKE_BPS = 1_000
BAND = TokenBand(
    floor_in="0.05",
    list_in="0.10",
    ceiling_in="1.00",
    floor_out="0.20",
    list_out="0.40",
    ceiling_out="4.00",
)
_PROCESS = 1


@dataclass
class Bourse:
    """The share of the runtime that the console reads, and the means to make things happen."""

    settings: Settings
    engine: AsyncEngine
    ledger: asyncpg.Connection
    market: Market = field(default_factory=lambda: build_market([], PriceBook.empty(), {}))
    pulse: Pulse = field(default_factory=Pulse)
    stopping: bool = False
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    now_s: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=lambda: Random(7))

    async def account(self, role: Role, name: str, funds_nanos: int = 0) -> Account:
        """Open an account; a consumer may have funds from the start."""
        async with self.engine.begin() as connection:
            account = await accounts.create(connection, role, name, self.clock())
        if funds_nanos:
            assert account.ledger_account is not None
            await _fund(self.ledger, account.ledger_account, funds_nanos)
        return account

    async def key(self, account: Account) -> str:
        """Issue a key."""
        async with self.engine.begin() as connection:
            return (await keys.issue(connection, account.id, KeyTerms(), self.clock())).text

    async def offer(self, provider: Account, offered: DeploymentOffer) -> UUID:
        """Register a deployment and list it."""
        deployment = await self.register(provider, offered)
        async with self.engine.begin() as connection:
            record = await deployments.find(connection, deployment, SEALER)
            await listing.set_verdict(connection, record, ListingStatus.LISTED, [])
        await self.reload()
        return deployment

    async def register(self, provider: Account, offered: DeploymentOffer) -> UUID:
        """Register a deployment, which lists it not yet."""
        async with self.engine.begin() as connection:
            registered = await catalog.register(
                connection, provider.id, offered, SEALER, (TAKE_BPS, self.clock())
            )
        return registered.deployment_id

    async def fail(self, deployment: UUID, reports: Sequence[ProbeReport]) -> None:
        """Let a deployment fail its probes."""
        async with self.engine.begin() as connection:
            record = await deployments.find(connection, deployment, SEALER)
            await listing.set_verdict(connection, record, ListingStatus.FAILED, reports)

    async def reload(self, presence: dict[int, Presence] | None = None) -> None:
        """Look at catalog and prices anew; what has no price yet gets its list price."""
        async with self.engine.begin() as connection:
            _, endpoints = await catalog.load_market(connection, SEALER)
            book = await prices.latest_book(connection)
            unpriced = [each for each in endpoints if not _priced(book, each.number)]
            if unpriced:
                book = _listed(book, unpriced)
                changed = [each.number for each in unpriced], [0.0] * len(unpriced)
                at = self.clock() - timedelta(hours=1)
                await prices.insert_book(connection, book, "test", changed, at)
        self._swap(endpoints, book, presence)

    async def reprice(
        self, factors: dict[int, float], loads: dict[int, float], at: datetime
    ) -> None:
        """Publish a book in which these endpoints cost so many times their list price."""
        old = self.market.book
        rates = old.matrix()
        for number, factor in factors.items():
            band = self.market.endpoint(number).band
            listed = (band.list_in_micros, band.list_out_micros, band.list_call_nanos)
            rates[:, number] = [max(round(each * factor), 1) if each else 0 for each in listed]
        book = PriceBook.from_matrix(old.version + 1, rates)
        changed = [*factors], [loads.get(number, 0.0) for number in factors]
        async with self.engine.begin() as connection:
            await prices.insert_book(connection, book, "test", changed, at)
        members = [each for each in self.market.endpoints if each is not None]
        self._swap(members, book, dict(self.market.presence))

    def _swap(
        self, endpoints: list[Endpoint], book: PriceBook, presence: dict[int, Presence] | None
    ) -> None:
        self.market = build_market(endpoints, book, presence or {})
        deployed = max((each.deployment.number for each in endpoints), default=-1) + 1
        self.pulse.fit(len(self.market.endpoints), deployed)

    async def call(
        self,
        consumer: Account,
        wanted: Requirements,
        outcomes: Sequence[Outcome] = (DELIVERED,),
        tokens: tuple[int, int] = (812, 240),
        at: datetime | None = None,
    ) -> UUID:
        """Let a call happen: routed, held, tried with these outcomes in turn, settled, recorded."""
        at = at or self.clock()
        call_id = self._id(at)
        decision = route(wanted, self.market, self.pulse, RoutingLimits(), (self.random, 0.0))
        assert decision is not None
        attempts = self._dispatch(decision, outcomes)
        lines = tuple(self._line(decision, each, tokens) for each in attempts if _delivers(each))
        ends_s = max((each.ended_s or 0.0 for each in attempts), default=0.002)
        hold = _hold(consumer, call_id, decision.hold_nanos, at)
        record = _record(consumer, call_id, wanted, decision, attempts, lines, at, ends_s)
        if hold is None:
            await ledger.record_batch(self.ledger, [record])
            return call_id
        [held] = await ledger.hold_batch(self.ledger, [hold], _PROCESS)
        assert held.accepted, "the consumer has the funds"
        closing = recipes.settlement(hold, lines, at + timedelta(seconds=ends_s), record)
        take = await ledger.take_account(self.ledger, _PROCESS)
        await ledger.settle_batch(self.ledger, [closing], take)
        return call_id

    def _id(self, at: datetime) -> UUID:
        """A UUIDv7 of that moment, as a call of then would have."""
        milliseconds = int(at.timestamp() * 1_000)
        low = (0b10 << 62) | self.random.getrandbits(62)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | self.random.getrandbits(12) << 64 | low)

    def _dispatch(self, decision: Decision, outcomes: Sequence[Outcome]) -> list[Attempt]:
        if not decision.plan:
            return []
        dispatch = Dispatch(
            decision.plan, RetryBudget(0.0), deadline_s=300.0, attempts_max=4, random=self.random
        )
        now_s = 0.004
        for outcome in outcomes:
            attempt = dispatch.next_attempt(now_s)
            assert attempt is not None
            endpoint = self.market.endpoint(attempt.candidate.number)
            self.pulse.begin(endpoint.number, endpoint.deployment.number, self.now_s())
            took_s = self.random.uniform(0.4, 2.5) if outcome.fault is None else 0.3
            measured = None
            if outcome.fault is None:
                attempt.first_content_s = now_s + took_s * 0.2
                measured = Measured(took_s * 200, took_s * 1_000, 240)
            now_s += took_s
            dispatch.record(outcome, now_s)
            self.pulse.end(
                endpoint.number, endpoint.deployment.number, outcome, self.now_s(), measured
            )
        return dispatch.attempts

    def _line(self, decision: Decision, attempt: Attempt, tokens: tuple[int, int]) -> ChargeLine:
        endpoint = self.market.endpoint(attempt.candidate.number)
        terms = (attempt.candidate.rate, decision.price_version, endpoint.take_bps)
        line = recipes.line(attempt.index, endpoint.id, endpoint.ledger_account, tokens, terms)
        attempt.tokens_in, attempt.tokens_out = tokens
        attempt.charge_nanos = line.charge_nanos
        return line


def wanted(consumer: Account, **changes: object) -> Requirements:
    """A chat with any model, with changes."""
    plain = {
        "account_id": consumer.id,
        "task": Task.CHAT,
        "model": "auto",
        "tokens_in_bound": 3_000,
        "tokens_in_expected": 800,
        "tokens_out_max": 512,
    }
    return Requirements(**(plain | changes))  # type: ignore[arg-type]


def chat(name: str, model: str = "qwen2.5", **changes: object) -> EndpointOffer:
    """An endpoint that chats, with changes."""
    plain = {"name": name, "model": model, "tasks": ["chat"], "price": BAND, "quality": 0.6}
    return EndpointOffer(**(plain | changes))  # type: ignore[arg-type]


def server(name: str, *endpoints: EndpointOffer, **changes: object) -> DeploymentOffer:
    """A deployment, with changes."""
    plain = {
        "name": name,
        "url": f"https://{name}.example.com",
        "kind": "openai",
        "capacity": 8,
        "region": "eu-west",
        "endpoints": list(endpoints),
    }
    return DeploymentOffer(**(plain | changes))  # type: ignore[arg-type]


def failed(fault: Fault, status: int | None = None) -> Outcome:
    """An attempt that failed."""
    return Outcome(fault, status, detail=f"it was a {fault.value}")


def _delivers(attempt: Attempt) -> bool:
    return attempt.outcome is not None and attempt.outcome.fault is None


def _hold(consumer: Account, call_id: UUID, amount_nanos: int, at: datetime) -> Hold | None:
    if not amount_nanos:
        return None
    assert consumer.ledger_account is not None
    expires_at = at + timedelta(minutes=10)
    return Hold(call_id, consumer.ledger_account, "abcdef", amount_nanos, at, expires_at)


def _record(
    consumer: Account,
    call_id: UUID,
    asked: Requirements,
    decision: Decision,
    attempts: list[Attempt],
    lines: tuple[ChargeLine, ...],
    at: datetime,
    ends_s: float,
) -> CallRecord:
    served = bool(lines)
    code = "served" if served else ("all_providers_failed" if attempts else "nothing_fits")
    last = attempts[-1] if attempts else None
    return CallRecord(
        id=call_id,
        created_at=at,
        account_id=consumer.id,
        key_id="abcdef",
        task=asked.task.value,
        model=asked.model,
        domain=asked.domain,
        stream=asked.stream,
        status=200 if served else (502 if attempts else 404),
        code=code,
        endpoint_number=last.candidate.number if last else None,
        price_version=decision.price_version,
        hold_nanos=decision.hold_nanos,
        charge_nanos=sum(each.charge_nanos for each in lines),
        tokens_in=sum(each.tokens_in for each in lines),
        tokens_out=sum(each.tokens_out for each in lines),
        ttft_ms=(last.first_content_s or 0.0) * 1_000 if last and served else None,
        duration_ms=ends_s * 1_000,
        task_label=None,
        session_id=None,
        labels_json=None,
        story=story.encode(asked, decision, attempts, code, 0.0),
    )


def _priced(book: PriceBook, number: int) -> bool:
    return bool(book.matrix(number + 1)[:, number].any())


def _listed(book: PriceBook, endpoints: list[Endpoint]) -> PriceBook:
    rates = book.matrix(max(len(book), *(each.number + 1 for each in endpoints)))
    for each in endpoints:
        band = each.band
        rates[:, each.number] = band.list_in_micros, band.list_out_micros, band.list_call_nanos
    return PriceBook.from_matrix(book.version + 1, rates)


async def _fund(connection: asyncpg.Connection, account: UUID, amount_nanos: int) -> None:
    """Money from the world, as a top-up brings it."""
    world = await connection.fetchval("SELECT id FROM ledger_accounts WHERE kind = 'world'")
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO transfers"
            " (id, debit_id, credit_id, amount_nanos, kind, author, created_at)"
            " VALUES ($1, $2, $3, $4, 'topup', 'test', now())",
            uuid7(), world, account, amount_nanos,
        )  # fmt: skip
        for ledger_account, change in ((world, -amount_nanos), (account, amount_nanos)):
            await connection.execute(
                "UPDATE balances SET posted_nanos = posted_nanos + $2 WHERE ledger_account_id = $1",
                ledger_account,
                change,
            )
