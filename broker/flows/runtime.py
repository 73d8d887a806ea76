"""What a broker process has in hand while it runs: built once in `bootstrap`, passed to flows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.candidates.view import RoutingLimits
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import Throttle
from broker.core.hedging import HedgeBudget, Tails
from broker.core.market import Market
from broker.core.money.ration import Ration
from broker.core.quality.evidence import Piece
from broker.core.retries import RetryBudget
from broker.encoding.encoder import Encoder
from broker.encoding.tokens import TokenCounter
from broker.flows.access.keyring import Keyring
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.pace import Pacer
from broker.flows.market.heartbeat import HeartbeatDesk
from broker.flows.market.origins import Origins
from broker.flows.market.targets import Targets
from broker.live.room import Live
from broker.outbound.traces import Traces
from broker.settings import Settings
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import UpstreamClient

HEARD_MAX = 10_000
LOOKS_A_DAY = 20
"""At one account's answers from one endpoint, in one process."""
_now = partial(datetime.now, UTC)  # without a frame of Python, unlike a lambda


@dataclass(slots=True, eq=False)
class Runtime:
    """The broker's hands. `market` and `keyring` are swapped whole when they change."""

    settings: Settings
    engine: AsyncEngine
    pool: asyncpg.Pool
    live: Live
    sealer: Sealer
    addresses: AddressPolicy
    ledger: LedgerBatcher
    heartbeats: HeartbeatDesk
    upstream: UpstreamClient
    market: Market
    keyring: Keyring
    targets: Targets
    tokens: TokenCounter
    pulse: Pulse
    throttle: Throttle
    hedges: HedgeBudget
    tails: Tails
    retries: RetryBudget
    random: Random
    routing: RoutingLimits
    clock: Callable[[], datetime] = _now
    now_s: Callable[[], float] = time.monotonic
    origins: Origins = field(default_factory=Origins)
    traces: Traces | None = None
    """None, as mostly: no call is traced."""
    encoder: Encoder | None = None
    """None until a domain is taught."""
    calls_in_flight: int = 0
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Calls by the kind of their door and the HTTP status that their caller was told."""
    shed: Counter[str] = field(default_factory=Counter)
    """Calls refused for want of room, by the code of the error."""
    continued: int = 0
    """Attempts to go on with streams that had broken off."""
    silences: int = 0
    """Times that a server was found silent, and lost its calls for that."""
    heard: deque[Piece] = field(default_factory=lambda: deque(maxlen=HEARD_MAX))
    """Evidence that is yet to be written down."""
    looks: Ration = field(default_factory=lambda: Ration(LOOKS_A_DAY))
    """At the form of answers."""
    leaving: bool = False
    """Told to stop: unready, but serving still."""
    stopping: bool = False
    running: set[asyncio.Task[None]] = field(default_factory=set)
    """Settlements that outlive their request, kept from the garbage collector."""
    pacer: Pacer = field(init=False)

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.engine, self.live.paces)

    @property
    def settles(self) -> bool:
        """False while what calls end with cannot be written; no call is let in then."""
        return not self.ledger.is_stuck
