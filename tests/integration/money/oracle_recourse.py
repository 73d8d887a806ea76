"""What goes back to consumers, in plain Python: refunds and disputes.

A refund takes from the lines of a call in the proportion of what is left of them, from a line's
provider and broker in the proportion in which they earned it, and from a provider's purses in
order: what is pending, what is available, and what is not there is owed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.integration.money.oracle_books import Books, Call, Line, Refused, periods

WINDOW = timedelta(days=10)
ANSWER = timedelta(days=3)


@dataclass
class Part:
    """What is asked of one provider, what it says, and what was given back of it."""

    asked: int
    answer: str = "waiting"
    refunded: int = 0


@dataclass
class Dispute:
    """A consumer's word against a call: open, contested, decided or withdrawn."""

    call: int
    parts: dict[str, Part]
    answer_by: datetime
    state: str = "open"
    verdict: str | None = None

    @property
    def is_live(self) -> bool:
        return self.state in ("open", "contested")


@dataclass
class Recourse(Books):
    """Books from which money can go back."""

    disputes: dict[int, Dispute] = field(default_factory=dict)
    notes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The credit notes of each consumer, in the order of their numbers."""
    watermarks: dict[str, datetime] = field(default_factory=dict)
    """Of each provider: what was settled before has matured."""

    def gone_back(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Of each call and attempt, what has gone back, and how much of that was the broker's."""
        return {
            (number, line.attempt): (line.given, line.given_take)
            for number, call in self.calls.items()
            for line in call.lines
            if line.given
        }

    def charged(self, number: int) -> Call:
        call = self.calls.get(number)
        if call is None:
            raise Refused("not_found")
        if call.state == "open":
            raise Refused("call_not_settled")
        if not call.lines:
            raise Refused("nothing_charged")
        return call

    def has_matured(self, call: Call, provider: str) -> bool:
        assert call.settled_at is not None
        return provider in self.watermarks and call.settled_at < self.watermarks[provider]

    def refund(self, number: int, amount: int | None) -> int:
        """By an operator's word; how much went back."""
        call = self.charged(number)
        wanted = checked(amount, call.left)
        self._give_back(call, call.lines, wanted)
        return wanted

    def _give_back(self, call: Call, lines: Sequence[Line], amount: int) -> None:
        """The whole amount, from some lines of a call."""
        funds = f"funds {call.consumer}"
        clawed: defaultdict[str, int] = defaultdict(int)
        shares = shared(amount, [line.left for line in lines])
        for line, share in zip(lines, shares, strict=True):
            line.given += share
            take = line.given * line.take // line.charge - line.given_take
            line.given_take += take
            self.move(call.take_purse, funds, take)
            clawed[line.provider] += share - take
        for provider, part in clawed.items():
            self._claw_back(provider, call, part)
        self.notes[call.consumer].append(amount)
        key = self.keys[call.key]
        for period in periods(call.at) if key.limits is not None else ():
            key.spent[period] -= amount if period in periods(self.now) else 0

    def _claw_back(self, provider: str, call: Call, amount: int) -> None:
        funds = f"funds {call.consumer}"
        matured = self.has_matured(call, provider)
        for kind in ("available",) if matured else ("earnings", "available"):
            part = min(amount, self.posted[f"{kind} {provider}"])
            self.move(f"{kind} {provider}", funds, part)
            amount -= part
        self.move(f"receivable {provider}", funds, amount)

    def open_dispute(self, place: int, consumer: str, number: int, amount: int | None) -> int:
        """How much is asked; the dispute is known by its place from now on."""
        if number in self.calls and self.calls[number].consumer != consumer:
            raise Refused("not_found")
        call = self.charged(number)
        assert call.settled_at is not None
        if self.now >= call.settled_at + WINDOW:
            raise Refused("dispute_window_over")
        for former in reversed(self.disputes.values()):
            if former.call == number:
                self._refuse_a_second(former)
        asked = checked(amount, call.left)
        parts: dict[str, Part] = {}
        shares = shared(asked, [line.left for line in call.lines])
        for line, share in zip(call.lines, shares, strict=True):
            if share:
                parts.setdefault(line.provider, Part(0)).asked += share
        self.disputes[place] = Dispute(number, parts, self.now + ANSWER)
        return asked

    def _refuse_a_second(self, former: Dispute) -> None:
        if former.is_live:
            raise Refused("dispute_open")
        if former.verdict is not None:
            raise Refused("dispute_decided")
        contested = any(part.answer == "contested" for part in former.parts.values())
        if former.state == "withdrawn" and contested:
            raise Refused("dispute_withdrawn")

    def withdraw(self, place: int, consumer: str) -> str:
        dispute = self.disputes[place]
        if self.calls[dispute.call].consumer != consumer:
            raise Refused("not_found")
        if not dispute.is_live:
            raise Refused("dispute_closed")
        dispute.state = "withdrawn"
        return dispute.state

    def accept(self, place: int, provider: str) -> str:
        dispute, part = self._waiting(place, provider)
        self._refund_part(dispute, provider, part.asked)
        part.answer = "accepted"
        return self._move_on(dispute)

    def contest(self, place: int, provider: str) -> str:
        dispute, part = self._waiting(place, provider)
        if self.now >= dispute.answer_by:
            raise Refused("dispute_overdue")
        part.answer = "contested"
        return self._move_on(dispute)

    def decide(self, place: int, verdict: str, amount: int | None) -> int:
        """By an operator; how much went back in all by now."""
        dispute = self.disputes[place]
        if dispute.state == "open":
            raise Refused("dispute_not_contested")
        if dispute.state != "contested":
            raise Refused("dispute_closed")
        contested = [each for each in self.ranked(dispute) if each[1].answer == "contested"]
        whole = sum(part.asked for _, part in contested)
        if verdict == "rejected" and amount is not None:
            raise Refused("amount_out_of_bounds")
        upheld = 0 if verdict == "rejected" else checked(amount, whole)
        shares = shared(upheld, [part.asked for _, part in contested])
        for (provider, _), share in zip(contested, shares, strict=True):
            self._refund_part(dispute, provider, share)
        dispute.state, dispute.verdict = "decided", verdict
        return sum(part.refunded for part in dispute.parts.values())

    def decide_overdue(self) -> int:
        """For the consumer, where providers were silent; how many."""
        due = [
            each
            for each in self.disputes.values()
            if each.state == "open" and each.answer_by <= self.now
        ]
        for dispute in due:
            for provider, part in self.ranked(dispute):
                if part.answer == "waiting":
                    self._refund_part(dispute, provider, part.asked)
                    part.answer = "overdue"
            self._move_on(dispute)
        return len(due)

    def ranked(self, dispute: Dispute) -> list[tuple[str, Part]]:
        """The parts in the order of their providers."""
        return sorted(dispute.parts.items(), key=lambda each: self.providers.index(each[0]))

    def _waiting(self, place: int, provider: str) -> tuple[Dispute, Part]:
        dispute = self.disputes[place]
        part = dispute.parts.get(provider)
        if part is None:
            raise Refused("not_found")
        if part.answer != "waiting":
            raise Refused("dispute_answered")
        if dispute.state != "open":
            raise Refused("dispute_closed")
        return dispute, part

    def _move_on(self, dispute: Dispute) -> str:
        answers = {part.answer for part in dispute.parts.values()}
        if "waiting" not in answers:
            dispute.state = "contested" if "contested" in answers else "decided"
        return dispute.state

    def _refund_part(self, dispute: Dispute, provider: str, amount: int) -> None:
        """As much as is still there of the provider's lines."""
        call = self.calls[dispute.call]
        lines = [line for line in call.lines if line.provider == provider]
        amount = min(amount, sum(line.left for line in lines))
        if amount:
            self._give_back(call, lines, amount)
            dispute.parts[provider].refunded += amount


def checked(amount: int | None, left: int) -> int:
    """What is to go back of what is left, all of it where nothing is said."""
    if amount is not None and not 0 < amount <= 10**18:
        raise Refused("amount_out_of_bounds")
    wanted = left if amount is None else amount
    if not 0 < wanted <= left:
        raise Refused("refund_too_large")
    return wanted


def shared(amount: int, rooms: Sequence[int]) -> list[int]:
    """Share in the proportion of the rooms, rounded down; the rest fills the first that have room.

    One nano-dollar after the other, as nobody in a hurry would do it.
    """
    whole = sum(rooms)
    shares = [amount * room // whole if whole else 0 for room in rooms]
    while sum(shares) < amount:
        first = next(place for place, room in enumerate(rooms) if shares[place] < room)
        shares[first] += 1
    return shares
