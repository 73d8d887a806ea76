"""What the handlers of the console work with; built once by `web.app`, passed as `desk`."""

from __future__ import annotations

from dataclasses import dataclass, field

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from broker.api.streams import Streams
from web.board import Boards
from web.painter import Painter
from web.parts import Parts
from web.told import Teller


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """The running broker, and what the console keeps in memory for all viewers."""

    parts: Parts
    painter: Painter
    boards: Boards
    teller: Teller = field(default_factory=Teller)
    streams: Streams = field(default_factory=lambda: Streams("the console"))


GivenDesk = NamedDependency[SkipValidation[Desk]]
