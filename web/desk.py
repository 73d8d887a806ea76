"""What the handlers of the console work with; built once by `web.app`, passed as `desk`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from broker.errors import TooManyCalls
from web.board import Boards
from web.painter import Painter
from web.parts import Parts
from web.told import Teller

STREAMS_MAX = 200
STREAMS_OF_ACCOUNT_MAX = 8


class Streams:
    """Counts the open event streams, for each holds a connection."""

    def __init__(self) -> None:
        self._open: Counter[UUID] = Counter()

    def check(self, account_id: UUID) -> None:
        """Raises TooManyCalls when there is no room for one more."""
        if self._open.total() >= STREAMS_MAX or self._open[account_id] >= STREAMS_OF_ACCOUNT_MAX:
            raise TooManyCalls("Too many consoles are open.", retry_after_s=10)

    @contextmanager
    def opened(self, account_id: UUID) -> Iterator[None]:
        """Count one stream while it is open."""
        self._open[account_id] += 1
        try:
            yield
        finally:
            self._open[account_id] -= 1
            if not self._open[account_id]:
                del self._open[account_id]


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """The running broker, and what the console keeps in memory for all viewers."""

    parts: Parts
    painter: Painter
    boards: Boards
    teller: Teller = field(default_factory=Teller)
    streams: Streams = field(default_factory=Streams)


GivenDesk = NamedDependency[SkipValidation[Desk]]
