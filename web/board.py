"""The market as the console shows it: endpoint by endpoint, looked at once for all viewers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from broker.core.catalog import Endpoint
from broker.flows.authenticate import Caller
from broker.flows.find_equilibrium import Equilibrium, find_equilibrium
from broker.flows.read_prices import Listing, may_see, read_prices
from broker.store.accounts import Role
from broker.store.away import is_database_away
from pricing.book import Rate
from web import reads, sparkline, words
from web.parts import Parts
from web.scale import Scale, scale

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

    @property
    def ready(self) -> int:
        return sum(row.state == "ready" for row in self.rows)

    @property
    def in_flight(self) -> int:
        """Calls in flight; endpoints of one deployment share its count."""
        counts = {row.endpoint.deployment.number: row.in_flight for row in self.rows}
        return sum(counts.values())

    @property
    def members(self) -> str:
        """Tells one set of rows from another."""
        return ".".join(str(row.number) for row in self.rows)

    def row(self, number: int) -> BoardRow | None:
        """Return the row of one endpoint, None where the viewer sees none."""
        return next((row for row in self.rows if row.number == number), None)


class Boards:
    """Looks at the market for all viewers together."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._reading = asyncio.Lock()
        self._points: dict[int, list[sparkline.Point]] = {}
        self._read_s = float("-inf")
        self._looked_s = float("-inf")
        self._whole = Board((), 0, parts.clock())
        self._best = Equilibrium()
        self._cleared_s = float("-inf")

    async def look(self, caller: Caller) -> Board:
        """Return what the caller may see, by name."""
        await self._read()
        now_s = self._parts.now_s()
        if now_s - self._looked_s > _LOOK_AGAIN_S:
            self._whole, self._looked_s = self._draw(now_s), now_s
        whole = self._whole
        rows = tuple(row for row in whole.rows if may_see(caller, row.endpoint))
        return Board(rows, whole.version, whole.at)

    def _draw(self, now_s: float) -> Board:
        market, now = self._parts.market, self._parts.clock()
        listings = read_prices(market, self._parts.pulse, now_s)
        return Board(tuple(self._row(each, now) for each in listings), market.book.version, now)

    def _row(self, listing: Listing, now: datetime) -> BoardRow:
        endpoint, rate = listing.endpoint, listing.rate
        points = list(self._points.get(endpoint.number, ()))
        if rate is not None:
            points.append((now.timestamp(), words.headline(rate)))
        since = (now - WINDOW).timestamp()
        return BoardRow(
            endpoint=endpoint,
            state=words.STATES.get(listing.health, listing.health.value),
            in_flight=round(listing.load * endpoint.deployment.capacity),
            rate=rate,
            price=words.price(words.headline(rate)) if rate else words.NOTHING,
            unit=words.unit(endpoint.band),
            beside=words.beside(rate),
            exact=words.exact(rate),
            equilibrium=_at(self._best.clearing.get(endpoint.number), endpoint),
            earning=_at(self._best.earning.get(endpoint.number), endpoint),
            spark=sparkline.path(points, since, now.timestamp()),
            change=sparkline.change(points),
        )

    async def _read(self) -> None:
        """Read the history anew when it is due; while the database is away the old one serves."""
        async with self._reading:
            if self._parts.now_s() - self._read_s <= _READ_AGAIN_S:
                return
            since = self._parts.clock() - WINDOW
            try:
                async with self._parts.engine.connect() as connection:
                    steps = await reads.price_steps(connection, since, STEP)
            except Exception as error:
                if not is_database_away(error):
                    raise
            else:
                self._points = _points(steps)
            self._read_s = self._parts.now_s()
            if self._read_s - self._cleared_s > _CLEAR_AGAIN_S:
                market, self._cleared_s = self._parts.market, self._read_s
                listings = read_prices(market, self._parts.pulse, self._read_s)
                self._best = await asyncio.to_thread(find_equilibrium, listings, market.book)


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
