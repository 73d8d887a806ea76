"""The market as the console shows it: endpoint by endpoint, looked at once for all viewers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row

from broker.core.catalog import Endpoint
from broker.flows.access.authenticate import Caller
from broker.flows.market.find_equilibrium import Equilibrium, find_equilibrium
from broker.flows.market.read_prices import Health, Listing, Look, may_see
from broker.store.access.accounts import Role
from broker.store.away import is_database_away
from pricing.book import Rate
from web import reads, sparkline, words
from web.parts import Parts
from web.scale import Scale, scale

ROWS_MAX = 300
"""Of a larger market a viewer sees its own endpoints first, then those that take calls, by name: to
draw ten thousand takes the better part of a second, each second, in which no call is served."""
WINDOW = timedelta(minutes=10)
STEP = timedelta(seconds=10)
_LOOK_AGAIN_S = 0.5
_READ_AGAIN_S = 5.0
_CLEAR_AGAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One endpoint as it stands; texts are ready to be shown."""

    endpoint: Endpoint
    state: str
    in_flight: int
    rate: Rate | None
    price: str
    unit: str
    beside: str
    exact: str
    equilibrium: str
    earning: str
    spark: str
    change: float

    @property
    def number(self) -> int:
        return self.endpoint.number

    @property
    def load(self) -> float:
        return self.in_flight / self.endpoint.deployment.capacity

    @property
    def scale(self) -> Scale:
        return scale(self.endpoint.band, self.rate)

    def cells(self) -> dict[str, Any]:
        """What of the row may change while it is looked at, for the event stream."""
        return {
            "n": self.number,
            "state": self.state,
            "busy": f"{self.in_flight}/{self.endpoint.deployment.capacity}",
            "load": round(min(self.load, 1.0), 3),
            "price": self.price,
            "beside": self.beside,
            "exact": self.exact,
            "equilibrium": self.equilibrium,
            "earning": self.earning,
            "spark": self.spark,
            "change": change_text(self.change),
            "band": self.scale.now_share,
            "at": [round(self.load, 4), words.headline(self.rate)],
        }


@dataclass(frozen=True, slots=True)
class Board:
    """What one viewer sees of the market."""

    rows: tuple[BoardRow, ...]
    version: int
    at: datetime
    ready: int = 0
    in_flight: int = 0
    """Calls; endpoints of one deployment share its count. Both are of all that the viewer may see,
    not of the rows alone."""
    listed: int = 0
    members: str = ""
    """Tells one set of rows from another; one that was chosen beside them is none of it."""

    @property
    def more(self) -> int:
        """How many there are without a row."""
        return self.listed - len(self.rows)

    def row(self, number: int) -> BoardRow | None:
        """Return the row of one endpoint, None where the viewer sees none."""
        return next((row for row in self.rows if row.number == number), None)


class Boards:
    """Looks at the market for all viewers together."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._looking, self._reading = asyncio.Lock(), asyncio.Lock()
        self._points: dict[int, list[sparkline.Point]] = {}
        self._read_of: set[int] = set()
        self._asked: set[int] = set()
        """What rows were shown of since the history was read; and which it was read of."""
        self._read_s = float("-inf")
        self._looked_s = float("-inf")
        self._listings: list[Listing] = []
        self._drawn: dict[int, BoardRow] = {}
        self._version, self._at = 0, parts.clock()
        self._best = Equilibrium()
        self._cleared_s = float("-inf")

    async def look(self, caller: Caller, chosen: int | None = None) -> Board:
        """Return what the caller may see, by name; of a large market a part, and `chosen` if it may
        be seen."""
        await self._look()
        sight = await asyncio.to_thread(_sight, self._listings, caller, chosen)
        await self._read({each.endpoint.number for each in sight.shown})
        return Board(
            rows=tuple(map(self._row, sight.shown)),
            version=self._version,
            at=self._at,
            ready=sight.ready,
            in_flight=sight.in_flight,
            listed=sight.listed,
            members=sight.members,
        )

    async def _look(self) -> None:
        async with self._looking:
            now_s = self._parts.now_s()
            if now_s - self._looked_s > _LOOK_AGAIN_S:
                look, at = Look(self._parts.market, self._parts.pulse, now_s), self._parts.clock()
                self._listings = await asyncio.to_thread(look.listings)
                self._version, self._at = look.market.book.version, at
                self._looked_s = now_s
                self._drawn.clear()

    def _row(self, listing: Listing) -> BoardRow:
        number = listing.endpoint.number
        row = self._drawn.get(number)
        if row is None or row.endpoint is not listing.endpoint:
            row = self._drawn[number] = self._draw(listing, self._at)
        return row

    def _draw(self, listing: Listing, now: datetime) -> BoardRow:
        endpoint, rate = listing.endpoint, listing.rate
        points = list(self._points.get(endpoint.number, ()))
        if rate is not None:
            points.append((now.timestamp(), words.headline(rate)))
        since = (now - WINDOW).timestamp()
        return BoardRow(
            endpoint=endpoint,
            state=words.STATES.get(listing.health, listing.health.value),
            in_flight=_in_flight(listing),
            rate=rate,
            price=words.price(words.headline(rate)) if rate else words.NOTHING,
            unit=words.unit(endpoint.band),
            beside=words.beside(rate),
            exact=words.exact(rate),
            equilibrium=_at(self._best.clearing.get(endpoint.number), endpoint),
            earning=_at(self._best.earning.get(endpoint.number), endpoint),
            spark=sparkline.path(points, since, now.timestamp()),
            change=sparkline.change(points, since),
        )

    async def _read(self, numbers: set[int]) -> None:
        """Read the history of what is shown anew when it is due, or when more is shown; while the
        database is away the old one serves."""
        async with self._reading:
            due = self._parts.now_s() - self._read_s > _READ_AGAIN_S
            self._asked |= numbers
            wanted = set(self._asked) if due else self._asked - self._read_of
            if not wanted:
                return
            since = self._parts.clock() - WINDOW
            try:
                async with self._parts.engine.connect() as connection:
                    steps = await reads.price_steps(connection, since, STEP, sorted(wanted))
            except Exception as error:
                if not is_database_away(error):
                    raise
            else:
                self._points = _points(steps) if due else self._points | _points(steps)
                self._drawn.clear()
            # Not before: who asked for it may have left meanwhile.
            self._read_of = wanted if due else self._read_of | wanted
            if due:
                self._asked, self._read_s = set(numbers), self._parts.now_s()
                await self._find_best()

    async def _find_best(self) -> None:
        if self._read_s - self._cleared_s > _CLEAR_AGAIN_S:
            self._cleared_s = self._read_s
            look = Look(self._parts.market, self._parts.pulse, self._read_s)
            self._best = await asyncio.to_thread(_best, look)


class _Sight(NamedTuple):
    """What one viewer may see, but for how it is drawn; as `Board` has it."""

    shown: list[Listing]
    ready: int
    in_flight: int
    listed: int
    members: str


def _sight(listings: list[Listing], caller: Caller, chosen: int | None) -> _Sight:
    seen = [each for each in listings if may_see(caller, each.endpoint)]
    shown = first_of(seen, caller)
    numbers = [each.endpoint.number for each in shown]
    if chosen is not None and chosen not in numbers:
        shown += [each for each in seen if each.endpoint.number == chosen]
    in_flight = {each.endpoint.deployment.number: _in_flight(each) for each in seen}
    ready = sum(each.health is Health.READY for each in seen)
    members = ".".join(map(str, numbers))
    return _Sight(shown, ready, sum(in_flight.values()), len(seen), members)


def _best(look: Look) -> Equilibrium:
    return find_equilibrium(look.listings(), look.market.book)


def first_of(seen: list[Listing], caller: Caller) -> list[Listing]:
    """Return those that the caller is shown of many, in their order."""
    if len(seen) <= ROWS_MAX:
        return list(seen)

    def place(at: int) -> tuple[bool, bool]:
        listing = seen[at]
        is_own = listing.endpoint.deployment.provider_id == caller.account_id
        return not is_own, listing.health is not Health.READY

    return [seen[at] for at in sorted(sorted(range(len(seen)), key=place)[:ROWS_MAX])]


def _in_flight(listing: Listing) -> int:
    return round(listing.load * listing.endpoint.deployment.capacity)


def _at(rate: Rate | None, endpoint: Endpoint) -> str:
    if rate is None:
        return words.NOTHING
    return f"{words.price(words.headline(rate))} $/{words.unit(endpoint.band)}"


def owns(caller: Caller, endpoint: Endpoint) -> bool:
    """True for whom an endpoint's inner details are: its provider, and operators."""
    return caller.role is Role.OPERATOR or caller.account_id == endpoint.deployment.provider_id


def change_text(change: float) -> str:
    """A change of price over the window, with its sign; nothing for what rounds to none."""
    if abs(change) < 0.0005:
        return ""
    return f"{'+' if change > 0 else words.MINUS}{abs(change) * 100:.1f}%"


def rate_of(step: Row[Any]) -> Rate:
    """The rate in a row of the price history."""
    return Rate(step.rate_in_micros, step.rate_out_micros, step.rate_call_nanos)


def _points(steps: list[Row[Any]]) -> dict[int, list[sparkline.Point]]:
    points: dict[int, list[sparkline.Point]] = defaultdict(list)
    for step in steps:
        points[step.endpoint_number].append((step.at.timestamp(), words.headline(rate_of(step))))
    return points
