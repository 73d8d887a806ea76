"""Knows whose an origin is, and which endpoints are there, as the catalog says."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from broker.core.columns import Columns
from broker.core.market import Market
from broker.upstream.client import Origin

_KNOWN_MAX: Final = 20_000


class Origins:
    """Of the market seen last; laid out on first use, for a catalog changes far less often."""

    def __init__(self) -> None:
        self._columns: Columns | None = None
        self._laid_out: Columns | None = None
        self._numbers: dict[Origin, list[int]] = {}
        self._owners: dict[str, str] = {}

    def see(self, market: Market) -> None:
        """Be told of a new market."""
        self._columns = market.columns

    def endpoints_at(self, origin: Origin) -> list[int]:
        """Return the numbers of the endpoints at an origin."""
        self._lay_out()
        return self._numbers.get(origin, [])

    def owner_of(self, host: str) -> str | None:
        """Return the provider that a host is of; the first that named it, where there are more."""
        self._lay_out()
        return self._owners.get(host)

    def _lay_out(self) -> None:
        columns = self._columns
        if columns is None or columns is self._laid_out:
            return
        self._numbers, self._owners, self._laid_out = {}, {}, columns
        for each in columns.endpoints:
            if each is not None:
                origin = _origin_of(each.deployment.url)
                self._numbers.setdefault(origin, []).append(each.number)
                self._owners.setdefault(origin.host, each.deployment.provider)


@lru_cache(maxsize=_KNOWN_MAX)
def _origin_of(url: str) -> Origin:
    return Origin.parse(url)[0]
