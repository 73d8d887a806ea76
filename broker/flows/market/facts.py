"""What a process knows of the market from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter

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


def bands_of(endpoints: Iterable[Endpoint]) -> Bands:
    """Return the price bands by endpoint number."""
    return Bands.from_rows({each.number: _bounds(each.band) for each in endpoints})
