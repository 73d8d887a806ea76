"""The whole oracle: books, recourse, and how providers' earnings become payouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.integration.money.oracle_books import Refused, priced
from tests.integration.money.oracle_recourse import Recourse

CENT = 10_000_000
HOUR = timedelta(hours=1)
DELAY_DAYS = 1
KEPT = timedelta(days=1)
"""So long an idempotency key stands for its first request."""
QUOTES_OPEN_MAX = 4


@dataclass
class Payout:
    """One sum for one provider: open, sent, failed or returned."""

    amount: int
    state: str = "open"


@dataclass
class Terms:
    """What a provider wants, and how long an operator lets its earnings wait."""

    schedule: str = "manual"
    threshold: int = 0
    next_at: datetime | None = None
    delay_days: int = DELAY_DAYS


@dataclass
class Quote:
    """Rates promised to a consumer by provider, to one call at most."""

    consumer: str
    rates: dict[str, tuple[int, int, int]]
    tokens: tuple[int, int]
    """As many as the quote is for, in and out."""
    until: datetime
    used_by: int | None = None

    @property
    def ceiling(self) -> int:
        return max(priced(rates, self.tokens) for rates in self.rates.values())


@dataclass
class Claim:
    """The call that an idempotency key stands for."""

    meaning: int
    call: int
    process: int
    free_at: datetime
    expires_at: datetime


@dataclass
class Oracle(Recourse):
    """What must be true of the market's money after each deed."""

    seals: list[datetime] = field(default_factory=list)
    payouts: dict[str, list[Payout]] = field(default_factory=dict)
    terms: dict[str, Terms] = field(default_factory=dict)
    answers: dict[str, tuple[str, object, datetime]] = field(default_factory=dict)
    """Under an operator's idempotency key: of which request, and what was answered."""
    quotes: dict[int, Quote] = field(default_factory=dict)
    claims: dict[tuple[str, str], Claim] = field(default_factory=dict)

    def seal(self, before: datetime) -> bool:
        """Seal what is an hour old at least; False where that much is sealed already."""
        if self.seals and self.seals[-1] >= before:
            return False
        self.seals.append(before)
        return True

    def mature(self, provider: str) -> tuple[int, int]:
        """How much has become available, and how much of it paid what was owed."""
        until = self.now - max(timedelta(days=self.terms[provider].delay_days), HOUR)
        sealed = [each for each in self.seals if each <= until]
        matured = 0
        if sealed and (provider not in self.watermarks or sealed[-1] > self.watermarks[provider]):
            matured = self._mature_until(provider, sealed[-1])
        return matured, self._recover(provider)

    def _mature_until(self, provider: str, watermark: datetime) -> int:
        before = self.earned_before(provider)
        self.watermarks[provider] = watermark
        matured = self.earned_before(provider) - before
        self.move(f"earnings {provider}", f"available {provider}", matured)
        return matured

    def earned_before(self, provider: str) -> int:
        """What is left of the lines that have matured."""
        return sum(
            line.earned
            for call in self.calls.values()
            for line in call.lines
            if line.provider == provider and self.has_matured(call, provider)
        )

    def _recover(self, provider: str) -> int:
        owed = -self.posted[f"receivable {provider}"]
        paid = min(self.posted[f"available {provider}"], owed)
        self.move(f"available {provider}", f"receivable {provider}", paid)
        return paid

    def disputed(self, provider: str) -> int:
        """What has matured of calls that are disputed now, and may have to go back."""
        total = 0
        for dispute in self.disputes.values():
            part = dispute.parts.get(provider)
            call = self.calls[dispute.call]
            if part is not None and dispute.is_live and self.has_matured(call, provider):
                earned = sum(line.earned for line in call.lines if line.provider == provider)
                total += max(0, min(part.asked - part.refunded, earned))
        return total

    def payable(self, provider: str) -> int:
        """What could be paid now, once what is owed has been paid back."""
        available, owed = (
            self.posted[f"available {provider}"],
            -self.posted[f"receivable {provider}"],
        )
        return available - min(available, owed) - self.disputed(provider)

    def pay_out(self, provider: str) -> tuple[int, int]:
        """The number and the amount of a payout."""
        amount = max(0, self.payable(provider)) // CENT * CENT
        if not amount:
            raise Refused("payout_nothing_due")
        self._recover(provider)
        self.move(f"available {provider}", f"transit {provider}", amount)
        self.payouts.setdefault(provider, []).append(Payout(amount))
        return len(self.payouts[provider]), amount

    def pay_out_due(self) -> dict[str, tuple[int, int]]:
        """The payouts of those whose time has come."""
        made = {}
        for provider, terms in self.terms.items():
            if terms.next_at is None or terms.next_at > self.now:
                continue
            terms.next_at = next_time(terms.schedule, self.now)
            self._recover(provider)
            if self.payable(provider) >= max(terms.threshold, CENT):
                made[provider] = self.pay_out(provider)
        return made

    def wish(self, provider: str, schedule: str, threshold: int) -> str:
        terms = self.terms[provider]
        terms.schedule, terms.threshold = schedule, threshold
        terms.next_at = next_time(schedule, self.now)
        return "wished"

    def step(self, provider: str, place: int, to: str) -> str:
        """Take a payout on: it was sent, it failed, it came back. Said again it changes nothing."""
        payout = self.payouts[provider][place]
        if payout.state == to:
            return to
        if payout.state != ("sent" if to == "returned" else "open"):
            raise Refused(f"payout_{payout.state}")
        debit, credit = {
            "sent": (f"transit {provider}", "world"),
            "failed": (f"transit {provider}", f"available {provider}"),
            "returned": ("world", f"available {provider}"),
        }[to]
        self.move(debit, credit, payout.amount)
        payout.state = to
        return to

    def make_quote(self, place: int, quote: Quote) -> int:
        """The most that a call on it can cost."""
        standing = [
            each
            for each in self.quotes.values()
            if each.consumer == quote.consumer and each.used_by is None and each.until > self.now
        ]
        if len(standing) >= QUOTES_OPEN_MAX:
            raise Refused("quotes_open_max")
        self.quotes[place] = quote
        return quote.ceiling

    def use_quote(self, place: int, number: int) -> None:
        quote = self.quotes[place]
        if quote.used_by is not None or quote.until <= self.now:
            raise Refused("quote_gone")
        quote.used_by = number

    def claim(self, place: tuple[str, str], wanted: Claim) -> None:
        """Have a key stand for a call, unless it stands for one that runs or was served."""
        former = self.claims.get(place)
        stage = "free" if former is None else self._stage(former)
        if former is not None and stage != "free":
            same = former.meaning == wanted.meaning
            raise Refused(f"idempotency_{stage}" if same else "idempotency_conflict")
        self.claims[place] = wanted

    def _stage(self, claim: Claim) -> str:
        call = self.calls.get(claim.call)
        if call is not None and call.state == "open":
            return "running"
        if claim.expires_at <= self.now:
            return "free"
        if call is not None:
            served = call.charge or (call.state == "released" and call.code == "served")
            return "served" if served else "free"
        alive = claim.free_at > self.now and self.processes[claim.process].listed
        return "running" if alive else "free"


def next_time(schedule: str, now: datetime) -> datetime | None:
    """The midnight, UTC, at which a schedule comes round next."""
    if schedule == "manual":
        return None
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    while schedule == "weekly" and f"{midnight:%a}" != "Mon":
        midnight += timedelta(days=1)
    return midnight
