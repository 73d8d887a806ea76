"""What a process knows of the market from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final

from broker.core.catalog import Band, Deployment, Endpoint
from broker.core.market import Presence
from broker.core.quality.syllabus import Domain
from broker.store.access.keys import StoredKey
from pricing.book import PriceBook
from pricing.snapshot import Bands

# In the order that Bands wants: floor, list, ceiling of in, then out, then call.
_bounds = attrgetter(*(each.name for each in fields(Band)))


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All there is to know at one moment; nothing in it is changed in place."""

    loaded: bool = False
    """False until keys and catalog have been read once: no key can be called wrong before."""
    changed: bool = False
    """True when a Market built of the facts before these is out of date."""
    keys: Mapping[str, StoredKey] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()
    """By number, as the endpoints."""
    endpoints: tuple[Endpoint, ...] = ()
    domains: tuple[Domain, ...] = ()
    book: PriceBook = field(default_factory=PriceBook.empty)
    epoch: int = 0
    """Of the book, as in `broker.live.feed`."""
    presence: Mapping[int, Presence] = field(default_factory=dict)
    """By deployment number; who is not named is ready."""

    @property
    def deployment_numbers(self) -> int:
        """One more than the greatest deployment number in use."""
        return self.deployments[-1].number + 1 if self.deployments else 0

    @property
    def endpoint_numbers(self) -> int:
        """One more than the greatest endpoint number in use."""
        return self.endpoints[-1].number + 1 if self.endpoints else 0


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What became of a catalog; both by number."""

    fresh: tuple[Endpoint, ...]
    """Who is new, or has changed."""
    gone: tuple[int, ...]
    """Whose numbers are in use no more."""

    @classmethod
    def between(cls, before: Sequence[Endpoint], now: Sequence[Endpoint]) -> Change:
        """Compare two catalogs: whoever stands is the same object in both."""
        known = {each.number: each for each in before}
        fresh = tuple(each for each in now if known.pop(each.number, None) is not each)
        return cls(fresh, tuple(known))


@dataclass(frozen=True, slots=True, eq=False)
class Banded:
    """A catalog and its price bands, by endpoint number."""

    endpoints: tuple[Endpoint, ...]
    bands: Bands

    @classmethod
    def of(cls, endpoints: Sequence[Endpoint]) -> Banded:
        """Lay the bands of a catalog out."""
        rows = {each.number: _bounds(each.band) for each in endpoints}
        return cls(tuple(endpoints), Bands.from_rows(rows))

    def moved(self, endpoints: tuple[Endpoint, ...], change: Change | None = None) -> Banded:
        """Return those of another catalog, made of these: nearly all stand."""
        if change is None:
            change = Change.between(self.endpoints, endpoints)
        size = max((each.number + 1 for each in endpoints), default=0)
        rows = dict.fromkeys((each for each in change.gone if each < size), _NO_BAND)
        rows |= {each.number: _bounds(each.band) for each in change.fresh}
        return Banded(endpoints, self.bands.but(rows, size))


_NO_BAND: Final = (0,) * 9
