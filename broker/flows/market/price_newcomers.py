"""Gives what has been listed since the newest book its list price, until a tick has moved it."""

from __future__ import annotations

import numpy as np

from broker.core.catalog import Endpoint
from broker.flows.market.facts import Banded
from pricing.book import PriceBook


class Newcomers:
    """Fills up one process's books; what did not change stays the same object."""

    def __init__(self) -> None:
        self._banded = Banded.of(())
        self._told = self._full = PriceBook.empty()

    def priced(self, book: PriceBook, endpoints: tuple[Endpoint, ...]) -> PriceBook:
        """Return the book, told or filled up before, with a list price for each that it lacks.

        The tick begins at the list price as well. Filled up is what was told, never what was
        filled up before: with new terms an endpoint has the list price of those.
        """
        if book is self._full and endpoints is self._banded.endpoints:
            return book
        if endpoints is not self._banded.endpoints:
            self._banded = self._banded.moved(endpoints)
        told = self._told if book is self._full else book
        full = self._filled_up(told)
        if book is not self._full or full.changed(book).size:
            self._told, self._full = told, full
        return self._full

    def _filled_up(self, told: PriceBook) -> PriceBook:
        listed = self._banded.bands.listed
        rates = told.matrix(max(len(told), listed.shape[1]))
        lacking = np.flatnonzero((rates[:, : listed.shape[1]] == 0).all(axis=0))
        if not listed[:, lacking].any():
            return told
        rates[:, lacking] = listed[:, lacking]
        return PriceBook.from_matrix(told.version, rates)
