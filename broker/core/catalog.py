"""What providers offer, as values: Provider, Deployment, Endpoint, and their terms."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from uuid import UUID

from broker.core.wire.signature import Signature
from pricing.book import Rate
from pricing.tiers import Factors


class Task(enum.StrEnum):
    """What an endpoint can be asked to do."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    INFER = "infer"

    generates: bool
    """True when the answer is made of tokens that are paid for."""

    def __init__(self, text: str) -> None:
        self.generates = text in ("chat", "completion")


class Kind(enum.StrEnum):
    """The wire format a deployment speaks."""

    OPENAI = "openai"
    KSERVE = "kserve"


class ListingStatus(enum.StrEnum):
    """How far a deployment has come on its way to the market."""

    UNPROVEN = "unproven"
    AWAITING_APPROVAL = "awaiting_approval"
    FAILED = "failed"
    LISTED = "listed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Band:
    """The price band of an endpoint, floor <= list <= ceiling, floor > 0 for what is priced.

    Token rates are micro-dollars per million tokens, call rates nano-dollars per call; what is not
    priced is 0 throughout. An endpoint is priced either by tokens or by the call.
    """

    floor_in_micros: int = 0
    list_in_micros: int = 0
    ceiling_in_micros: int = 0
    floor_out_micros: int = 0
    list_out_micros: int = 0
    ceiling_out_micros: int = 0
    floor_call_nanos: int = 0
    list_call_nanos: int = 0
    ceiling_call_nanos: int = 0

    @property
    def floor(self) -> Rate:
        """The lowest rate."""
        return Rate(self.floor_in_micros, self.floor_out_micros, self.floor_call_nanos)

    @property
    def ceiling(self) -> Rate:
        """The highest rate."""
        return Rate(self.ceiling_in_micros, self.ceiling_out_micros, self.ceiling_call_nanos)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A server at a URL. `number` is a small dense integer that all processes agree on."""

    id: UUID
    number: int
    provider_id: UUID
    provider: str
    name: str
    url: str
    kind: Kind
    capacity: int
    region: str
    retains_data: bool
    trains_on_data: bool
    retention_days: int
    credential: str | None
    status: ListingStatus


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One version of one model on a deployment; `name` is `provider/endpoint`, and unique."""

    id: UUID
    number: int
    deployment: Deployment
    name: str
    model: str
    version: str
    upstream_model: str
    tasks: frozenset[Task]
    domains: dict[str, float]
    quality: float
    context_length_tokens: int | None
    max_output_tokens: int | None
    tokenizer_json: str | None
    visible_to: frozenset[UUID] | None
    """Accounts that may see it; None means all."""
    band: Band
    ledger_account: UUID
    """Where the provider's earnings are posted."""
    take_bps: int
    """The broker's share of a charge, in basis points."""
    take_bps_by_domain: dict[str, int] = field(default_factory=dict)
    """The share of calls of a domain, where it is another."""
    tiers: Factors = field(default_factory=dict)
    """What other tiers cost, in basis points of the price; one without a factor has none."""
    signature: Signature | None = None
    """What its model says that it takes and gives, where that is tensors and was seen."""

    def take_of(self, domain: str | None) -> int:
        """Return the broker's share of a call of `domain`."""
        others = self.take_bps_by_domain
        return others.get(domain, self.take_bps) if others and domain else self.take_bps
