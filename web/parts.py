"""What the console needs of the running broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.health.pulse import Pulse
from broker.core.market import Market
from broker.settings import Settings


class Parts(Protocol):
    """The share of the runtime that the console reads; `now_s` is a monotonic clock."""

    @property
    def settings(self) -> Settings: ...
    @property
    def engine(self) -> AsyncEngine: ...
    @property
    def market(self) -> Market: ...
    @property
    def pulse(self) -> Pulse: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def clock(self) -> Callable[[], datetime]: ...
    @property
    def now_s(self) -> Callable[[], float]: ...
