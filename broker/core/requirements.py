"""What a caller asks for: hard constraints that filter, and weights that rank."""

from __future__ import annotations

from uuid import UUID

import msgspec

from broker.core.catalog import Task
from pricing.tiers import Tier


class Weights(msgspec.Struct, frozen=True):
    """How much each part of the score counts; any non-negative numbers, normalised when used."""

    quality: float = 1.0
    domain_fit: float = 1.0
    cost: float = 1.0
    latency: float = 0.5
    availability: float = 1.0


PRESETS: dict[str, Weights] = {
    "balanced": Weights(),
    "quality": Weights(quality=4.0, domain_fit=2.0, cost=0.2, latency=0.2, availability=1.0),
    "cheap": Weights(quality=0.5, domain_fit=0.5, cost=4.0, latency=0.2, availability=1.0),
    "fast": Weights(quality=0.5, domain_fit=0.5, cost=0.2, latency=4.0, availability=1.0),
}


class Taste(msgspec.Struct, frozen=True):
    """What a preset means once it is learned how well endpoints answer: lambda and mu."""

    worth: float
    """A good answer is worth so many times what the call typically costs: 1 / lambda."""
    lateness: float = 0.1
    """Mu: taking twice as long as wanted costs so much of a good answer's worth."""
    hurried: bool = False
    """What is wanted is the soonest that anybody is expected to be, else LATENCY_OBJECTIVE_MS."""


TASTES: dict[str, Taste] = {
    # An endpoint at twice the typical price must be better by 0.05, by 1, by 0.001.
    "balanced": Taste(20.0),
    "cheap": Taste(1.0),
    "quality": Taste(1_000.0),
    "fast": Taste(20.0, lateness=1.0, hurried=True),
}


class Prompt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a prompt is made of. Its vector is not here, for words can be read back from that."""

    cells: tuple[int, ...] = ()
    """As `broker.core.quality.lessons` counts them; of no meaning once it has learned more."""
    shares: tuple[float, ...] = ()
    """Of each cell."""


class Requirements(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One call's demands on an endpoint. None means: no such demand.

    A struct and not a dataclass, for one is made and encoded for every call.
    """

    account_id: UUID
    task: Task
    model: str
    """`auto`, a model family, or `provider/endpoint`."""
    tokens_in_bound: int
    """No tokenizer makes more tokens of the prompt (its UTF-8 bytes and a template allowance)."""
    tokens_in_expected: int
    tokens_out_max: int | None
    """What the caller set; None means that the hold sets it."""
    choices: int = 1
    """How many answers are asked for at once; each may be as long as the limit."""
    version: str | None = None
    tokens_in_longest: int | None = None
    """Expected of the longest of several texts, each of which has a context of its own; None: there
    is one."""
    domain: str | None = None
    max_rate_in_micros: int | None = None
    max_rate_out_micros: int | None = None
    max_cost_nanos: int | None = None
    quality_min: float | None = None
    latency_ms_max: float | None = None
    regions: frozenset[str] | None = None
    allow_retention: bool = True
    allow_training: bool = True
    providers_only: frozenset[str] | None = None
    providers_ignore: frozenset[str] = frozenset()
    providers_order: tuple[str, ...] = ()
    weights: Weights = Weights()
    preset: str | None = None
    """The one of TASTES that counts in place of the weights where it is learned how well endpoints
    answer."""
    value_nanos: int | None = None
    """What a good answer is worth to the caller; then neither weights nor preset count."""
    paced: bool = False
    """What it is worth is for the key's monthly budget to say."""
    explore: bool = False
    """The call may go to who may be better than it seems, for more to be learned."""
    stream: bool = False
    models_only: frozenset[str] | None = None
    """Families and endpoints that the key allows."""
    domains_only: frozenset[str] | None = None
    """Domains that the key allows: specialists in others are left out."""
    quote_id: UUID | None = None
    """The firm quote that the call is made on."""
    tier: Tier = Tier.STANDARD
    home: int | None = None
    """The number of the endpoint that has the conversation's context."""
    domain_confidence: float | None = None
    """Where the broker recognised the domain, for the caller had named none."""
    prompt: Prompt | None = None
    """Of a call to `auto`, where there is anything to recognise; kept nowhere."""
    groups: str | None = None
    """The groups of prompts that its prompt is of, as its recogniser told them: what is said of its
    answer teaches these as well."""
    skipped: tuple[str, ...] = ()
    """Of several models, those that could not be asked, each with why: `name: code`."""

    @property
    def tokens_in_context(self) -> int:
        """What is expected to be in one context."""
        return self.tokens_in_longest or self.tokens_in_expected

    @property
    def named_domain(self) -> str | None:
        """The domain that the caller named: no money goes by what was merely recognised."""
        return self.domain if self.domain_confidence is None else None
