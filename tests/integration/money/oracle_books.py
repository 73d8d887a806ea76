"""The books in plain Python: who has how much, what is held, and what keys may spend.

Nothing here is the broker's: amounts are ints in dicts, rules are written down a second time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

LASTING = timedelta(minutes=15)
"""So long a process must have lived before its holds expire, and so long after their time."""

Period = tuple[str, str]
"""A kind of budget and which of its periods, such as ("month", "2031-04")."""


class Refused(Exception):
    """The books stay as they were; the code says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Line:
    """What one provider earned with a call, and what of it has gone back since."""

    attempt: int
    provider: str
    charge: int
    take: int
    given: int = 0
    given_take: int = 0

    @property
    def left(self) -> int:
        return self.charge - self.given

    @property
    def earned(self) -> int:
        """What is left of the provider's part."""
        return self.charge - self.take - (self.given - self.given_take)


@dataclass
class Call:
    """A hold and what became of it: open, captured, released or expired."""

    consumer: str
    key: str
    held: int
    process: int
    at: datetime
    expires_at: datetime
    budgeted: bool
    state: str = "open"
    settled_at: datetime | None = None
    take_purse: str = ""
    lines: list[Line] = field(default_factory=list)
    code: str | None = None
    """What the call's own record says of its end; none where nobody wrote one."""

    @property
    def charge(self) -> int:
        return sum(line.charge for line in self.lines)

    @property
    def left(self) -> int:
        return sum(line.left for line in self.lines)


@dataclass
class Key:
    """A key that was never counted has no limits; a limit of None is none."""

    consumer: str
    limits: dict[str, int | None] | None = None
    spent: defaultdict[Period, int] = field(default_factory=lambda: defaultdict(int))
    held: defaultdict[Period, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Process:
    """A broker: while it is listed its holds do not expire as others do."""

    leased: bool = True
    listed: bool = True
    leased_for: timedelta = timedelta()


@dataclass
class Books:
    """Balances by purse, such as `funds c0` or `earnings p1`; the world is everything outside."""

    began: datetime
    now: datetime
    providers: list[str]
    """In the order of their ids."""
    posted: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    held: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[int, Call] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)

    @property
    def elapsed(self) -> timedelta:
        return self.now - self.began

    def available(self, purse: str) -> int:
        return self.posted[purse] - self.held[purse]

    def balances(self) -> dict[str, tuple[int, int]]:
        """What is posted and held in every purse that is not empty."""
        standing = {each: (self.posted[each], self.held[each]) for each in list(self.posted)}
        return {purse: amounts for purse, amounts in standing.items() if any(amounts)}

    def budgets(self) -> dict[tuple[str, str, str], tuple[int, int]]:
        """What each key has spent and holds in each of its periods, but for nothing at all."""
        return {
            (name, *period): (key.spent[period], key.held[period])
            for name, key in self.keys.items()
            for period in {*key.held, *key.spent}
            if key.spent[period] or key.held[period]
        }

    def move(self, debit: str, credit: str, amount: int) -> None:
        assert amount >= 0
        self.posted[debit] -= amount
        self.posted[credit] += amount

    def open_calls(self) -> list[int]:
        return [number for number, call in self.calls.items() if call.state == "open"]

    def top_up(self, purse: str, amount: int) -> int:
        """Money from the world, or to it where the amount is below zero; the new balance."""
        if amount < 0 and self.available(purse) < -amount:
            raise Refused("insufficient_balance")
        self.posted["world"] -= amount
        self.posted[purse] += amount
        return self.posted[purse]

    def hold(self, number: int, key: str, amount: int, process: int, lasts: timedelta) -> str:
        owner = self.keys[key]
        funds = f"funds {owner.consumer}"
        if amount > self.available(funds):
            raise Refused("insufficient_balance")
        self._require_budget(owner, amount, self._at(number))
        if number in self.calls:
            raise Refused("conflict")
        counted = owner.limits is not None
        at, until = self.now, self.now + lasts
        call = Call(owner.consumer, key, amount, process, at, until, counted)
        self.calls[number] = call
        self.held[funds] += amount
        for period in periods(call.at) if counted else ():
            owner.held[period] += amount
        return "held"

    def _at(self, number: int) -> datetime:
        """When a call was admitted; one that is sent again bears its first date."""
        return self.calls[number].at if number in self.calls else self.now

    def _require_budget(self, key: Key, amount: int, at: datetime) -> None:
        if key.limits is None:
            return
        limited = [(key.limits[period[0]], period) for period in periods(at)]
        tight = [(limit, period) for limit, period in limited if limit is not None]
        if any(amount > limit - key.spent[period] for limit, period in tight):
            raise Refused("budget_exceeded")
        if any(amount > limit - key.spent[period] - key.held[period] for limit, period in tight):
            raise Refused("budget_held")

    def settle(self, number: int, lines: list[Line], process: int, code: str | None) -> bool:
        """Close a hold for what was delivered; False where it is gone."""
        call = self.calls.get(number)
        if call is None or call.state != "open":
            return False
        charge = sum(line.charge for line in lines)
        if charge > call.held:
            raise Refused("settlement_refused")
        self._close(call, "captured" if charge else "released", charge)
        call.lines, call.code = [line for line in lines if line.charge], code
        call.take_purse = f"take {process}"
        for line in call.lines:
            self.move(f"funds {call.consumer}", f"earnings {line.provider}", line.earned)
            self.move(f"funds {call.consumer}", call.take_purse, line.take)
        return True

    def _close(self, call: Call, state: str, charge: int = 0) -> None:
        call.state, call.settled_at = state, self.now
        self.held[f"funds {call.consumer}"] -= call.held
        for period in periods(call.at) if call.budgeted else ():
            key = self.keys[call.key]
            key.held[period] -= call.held
            key.spent[period] += charge

    def sweep(self) -> tuple[int, int]:
        """Give back what nobody will settle any more: how much had expired, or was orphaned."""
        expired = orphaned = 0
        for number in self.open_calls():
            call = self.calls[number]
            process = self.processes[call.process]
            if call.expires_at <= self._expiry_of(process):
                self._close(call, "expired")
                expired += 1
            elif process.listed and not process.leased:
                self._close(call, "released")
                orphaned += 1
        for process in self.processes.values():
            process.listed = process.leased
        return expired, orphaned

    def _expiry_of(self, process: Process) -> datetime:
        """What had to expire by when, of a process's holds."""
        if not process.listed:
            return self.now
        lasting = process.leased and process.leased_for >= LASTING
        return self.now - LASTING if lasting else datetime.min.replace(tzinfo=self.now.tzinfo)

    def set_budgets(self, key: str, limits: dict[str, int | None]) -> str:
        """Limit a key; one that was never counted begins with what it has spent and holds."""
        owner = self.keys[key]
        if owner.limits is None:
            if not any(each is not None for each in limits.values()):
                return "set"
            own = [each for each in self.calls.values() if each.key == key]
            for period in periods(self.now):
                owner.spent[period] = sum(call.left for call in own if period in periods(call.at))
            for call in own:
                call.budgeted = call.state == "open"
                for period in periods(call.at) if call.budgeted else ():
                    owner.held[period] += call.held
        owner.limits = limits
        return "set"

    def pass_time(self, time: timedelta) -> None:
        self.now += time
        for process in self.processes.values():
            process.leased_for += time if process.leased else timedelta()


def periods(at: datetime) -> list[Period]:
    """The day, the month and the whole in which a hold counts, UTC."""
    return [("day", f"{at:%Y-%m-%d}"), ("month", f"{at:%Y-%m}"), ("total", "")]


def priced(rates: tuple[int, int, int], tokens: tuple[int, int]) -> int:
    """Nano-dollars, rounded up: rates are micro-dollars per million tokens, and nanos a call."""
    picos = tokens[0] * rates[0] + tokens[1] * rates[1] + 1_000 * rates[2]
    return (picos + 999) // 1_000
