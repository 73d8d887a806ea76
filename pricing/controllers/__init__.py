"""Controllers: what turns load into proposed prices, each a pure step from state to state."""

from __future__ import annotations

from typing import Protocol, TypeVar

from pricing.book import PriceBook, ProposedRates
from pricing.snapshot import Bands, MarketSnapshot

State = TypeVar("State")


class Controller(Protocol[State]):
    """One way of moving prices. It keeps nothing: its state is a value handed in and out."""

    def resume(self, book: PriceBook, bands: Bands) -> State:
        """The state that goes on from a published book; from an empty one, all start at list."""
        ...

    def step(self, state: State, snapshot: MarketSnapshot) -> tuple[State, ProposedRates]:
        """The next state and the rates it asks for, which only the guardrails may publish."""
        ...
