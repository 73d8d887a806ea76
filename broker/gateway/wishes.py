"""The `broker` object of a body and the `x-broker-*` headers: constraints and wishes."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from broker.core.cascade import Below, Cascade, Stage
from broker.core.requirements import PRESETS, Weights
from broker.core.wire.complaints import nearest, worded
from broker.errors import RequestMalformed, UnknownField
from pricing.money import AmountMalformed, MoneyError, parse_rate_micros, parse_usd_nanos
from pricing.tiers import Tier

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]
Weight = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]
# No NUL: the database keeps none, and a call whose record it refuses would be charged unseen.
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"\A[^\0]*\Z")]
Names = Annotated[list[Text], msgspec.Meta(max_length=1_000)]
DataPolicy = Literal["any", "no_training", "no_retention"]
_PREFIX = b"x-broker-"
CHAIN_MAX = 4
KEEP_FROM = 0.8
"""An answer is kept from this chance of being good on, where nothing is told."""
_DIGITS_MAX = 40
BUDGET = "budget"


class _Wish(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The base: a misspelt wish is refused by name instead of being ignored."""


class MaxPrice(_Wish, frozen=True, kw_only=True):
    """In USD per million tokens."""

    input: Decimal | None = msgspec.field(name="in", default=None)
    output: Decimal | None = msgspec.field(name="out", default=None)


class Providers(_Wish, frozen=True, kw_only=True):
    """Names of providers: nobody else, none of these, these first."""

    only: Names | None = None
    ignore: Names = []
    order: Names = []


class WeightsWish(_Wish, frozen=True, kw_only=True):
    """How much each part of the score counts; what is not named counts nothing."""

    quality: Weight = 0.0
    domain_fit: Weight = 0.0
    cost: Weight = 0.0
    latency: Weight = 0.0
    availability: Weight = 0.0


class StageWish(_Wish, frozen=True, kw_only=True):
    """A model of a chain, and from which chance of being good on its answer is kept.

    If not told KEEP_FROM; of the last model, what the cascade asks in the end, where it does.
    """

    model: Text
    keep_from: Share | None = None


class CascadeWish(_Wish, frozen=True, kw_only=True):
    """A first model answers, and the next where that is not good enough."""

    policy: Literal["off", "auto", "chain"] = "auto"
    chain: Annotated[list[StageWish], msgspec.Meta(max_length=CHAIN_MAX)] = []
    keep_from: Share | None = None
    """Below it the last answer is flagged, or refused; of a chain, if not told, its last."""
    pay: Literal["both", "kept"] = "both"
    below: Below = Below.FLAG
    agreement: Text | None = None
    """Another answer to compare with: `sample`, of the same endpoint, or the name of a model."""
    buffer_bytes: Annotated[int, msgspec.Meta(ge=0, le=1_048_576)] = 65_536
    """So much of a stream is held back for it to be judged."""
    decide_after_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    """Of a stream: judge by so many of its first tokens."""

    def plan(self) -> Cascade | None:
        """Return the cascade, None for none. Raises RequestMalformed."""
        if self.policy == "off":
            return None
        if (self.policy == "chain") != (len(self.chain) >= 2) or len(self.chain) == 1:
            raise RequestMalformed(
                "broker.cascade: a chain, and nothing else, names 2 to 4 models."
            )
        stages, least = self._stages(), self.keep_from
        if least is None and stages:
            least = stages[-1].keep_from
        if self.below is not Below.FLAG and least is None:
            raise RequestMalformed(f"broker.cascade: 'below': '{self.below}' needs a keep_from.")
        if self.agreement is not None and self.decide_after_tokens is not None:
            raise RequestMalformed(
                "broker.cascade: whole answers are compared; say agreement or decide_after_tokens."
            )
        return Cascade(
            stages,
            least,
            self.pay == "both",
            self.below,
            self.agreement,
            self.buffer_bytes,
            self.decide_after_tokens,
        )

    def _stages(self) -> tuple[Stage, ...]:
        usual = [KEEP_FROM] * len(self.chain)
        if usual and self.keep_from is not None:
            usual[-1] = self.keep_from
        return tuple(
            Stage(each.model, least if each.keep_from is None else each.keep_from)
            for each, least in zip(self.chain, usual, strict=True)
        )


class Wishes(_Wish, frozen=True, kw_only=True):
    """All that a caller may ask of the broker itself."""

    domain: Text | None = None
    max_price: Decimal | MaxPrice | None = None
    """USD per million tokens; one number bounds both in and out."""
    max_cost: Decimal | None = None
    """USD for the whole call, at most."""
    quality_min: Share | None = None
    latency_ms_max: Positive | None = None
    region: Text | Names | None = None
    data_policy: DataPolicy = "any"
    providers: Providers = Providers()
    weights: WeightsWish | Text | None = None
    """Weights, or the name of a preset: quality, cheap, fast, balanced, or budget, which is none:
    what money is worth is for the key's monthly budget to say."""
    value_usd: Decimal | None = None
    """What a good answer is worth, in USD; then weights are not asked for."""
    explore: bool | None = None
    """Of `auto`, where the key says nothing else: let the call go to who may be better than it
    seems, for more to be learned."""
    deadline_s: Positive | None = None
    task: Text | None = None
    """The caller's own name for what the call is for."""
    labels: Annotated[dict[Text, Text], msgspec.Meta(max_length=50)] | None = None
    session_id: Text | None = None
    """The caller's name for a conversation; its follow-ups stay where its context is."""
    quote_id: UUID | None = None
    """The firm quote to be served on."""
    tier: Tier = Tier.STANDARD
    cascade: CascadeWish | None = None
    """May the call be answered more than once?"""
    hedge: bool = False
    """Ask a second endpoint where the first is later than it mostly is; who answers first wins."""
    continue_on_cut: bool = False
    """Where a stream breaks off, let the next endpoint continue from what was delivered."""
    on_running: Literal["wait", "refuse"] = "wait"
    """Of a call whose Idempotency-Key is another's that runs: wait for it, or be refused."""

    def weighed(self) -> Weights:
        """Return the weights. Raises RequestMalformed for a preset there is not."""
        if self.weights is None:
            return PRESETS["balanced"]
        if self.weights == BUDGET:
            return PRESETS["balanced"]
        if isinstance(self.weights, str):
            if self.weights not in PRESETS:
                known = ", ".join((*PRESETS, BUDGET))
                raise RequestMalformed(
                    f"broker.weights: there is no preset '{self.weights}', only {known}."
                )
            return PRESETS[self.weights]
        return Weights(**msgspec.structs.asdict(self.weights))

    def preset(self) -> str | None:
        """Return the preset that is wished for; None where there are weights of the caller's."""
        if self.weights is None or self.weights == BUDGET:
            return "balanced"
        return self.weights if isinstance(self.weights, str) else None

    def max_rates(self) -> tuple[int | None, int | None]:
        """Return the highest token rates, in and out, in micro-dollars per million tokens."""
        price = self.max_price
        if isinstance(price, MaxPrice):
            return _micros(price.input), _micros(price.output)
        return _micros(price), _micros(price)

    def max_cost_nanos(self) -> int | None:
        """Return the most the call may cost, in nano-dollars."""
        if self.max_cost is None:
            return None
        try:
            return parse_usd_nanos(_plain(self.max_cost))
        except MoneyError as error:
            raise RequestMalformed(f"broker.max_cost: {error}.") from None

    def value_nanos(self) -> int | None:
        """Return what a good answer is worth, in nano-dollars. Raises RequestMalformed."""
        if self.value_usd is None:
            return None
        try:
            nanos = parse_usd_nanos(_plain(self.value_usd))
        except MoneyError as error:
            raise RequestMalformed(f"broker.value_usd: {error}.") from None
        if not nanos:
            raise RequestMalformed("broker.value_usd: a good answer is worth something.")
        if self.weights is not None:
            raise RequestMalformed("broker.value_usd: say either this or weights.")
        return nanos

    def regions(self) -> frozenset[str] | None:
        """Return the regions allowed, None for all."""
        if self.region is None:
            return None
        return frozenset([self.region] if isinstance(self.region, str) else self.region)


WISHES_BYTES_MAX = 1 << 18
NO_WISHES = Wishes()
_decode = msgspec.json.Decoder(Wishes).decode


def read_wishes(raw: msgspec.Raw | None, headers: Iterable[tuple[bytes, bytes]]) -> Wishes:
    """Return the wishes of a request; the body's win over the headers' one by one.

    Raises UnknownField and RequestMalformed, naming the field.
    """
    named = {}
    if b" ".join(dict(headers)).find(_PREFIX) >= 0:  # `in` takes four times as long on bytes
        named = {name: value for name, value in headers if name.startswith(_PREFIX)}
    if raw is None and not named:
        return NO_WISHES
    if raw is not None and memoryview(raw).nbytes > WISHES_BYTES_MAX:
        # Lists that are too long are made before they are refused, which took seconds.
        raise RequestMalformed(f"The broker object has more than {WISHES_BYTES_MAX} bytes.")
    try:
        inside = NO_WISHES if raw is None else _decode(raw)
        if not named:
            return inside
        outside = msgspec.convert(_from_headers(named), Wishes, strict=False)
        told = () if raw is None else msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return msgspec.structs.replace(outside, **{name: getattr(inside, name) for name in told})
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise RequestMalformed("The broker object is not valid JSON.") from None


def in_tier(wishes: Wishes, service_tier: str | None) -> Wishes:
    """Return the wishes with the tier that OpenAI's own `service_tier` names, unless the broker
    object names one. Raises RequestMalformed for a tier there is not."""
    if service_tier is None:
        return wishes
    if service_tier not in _SERVICE_TIERS:
        known = ", ".join(_SERVICE_TIERS)
        raise RequestMalformed(f"'service_tier': there is no '{service_tier}' here, only {known}.")
    tier = _SERVICE_TIERS[service_tier]
    if tier is Tier.STANDARD or wishes.tier is not Tier.STANDARD:
        return wishes
    return msgspec.structs.replace(wishes, tier=tier)


_SERVICE_TIERS = {
    "auto": Tier.STANDARD,
    "default": Tier.STANDARD,
    "flex": Tier.FLEX,
    "priority": Tier.PRIORITY,
}


def _from_headers(named: dict[bytes, bytes]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in named.items():
        field = name[len(_PREFIX) :].decode("latin-1").replace("-", "_")
        text = value.decode("latin-1").strip()
        if field.startswith("providers_"):
            told.setdefault("providers", {})[field.removeprefix("providers_")] = _words(text)
        elif field == "region":
            told[field] = _words(text)
        elif field == "labels" or (field in ("weights", "max_price") and "=" in text):
            told[field] = dict(_pair(word, field) for word in _words(text))
        else:
            told[field] = text
    return told


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pair(word: str, field: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise RequestMalformed(f"x-broker-{field}: '{word}' is not of the form name=value.")
    return name.strip(), value.strip()


def _refused(reason: str) -> RequestMalformed | UnknownField:
    told, _, place = reason.partition(" - at ")
    path = place.strip("`").removeprefix("$")
    if "unknown field" in told:
        name = told.split("`")[1]
        meant = "" if path else nearest(name, Wishes.__struct_fields__)
        return UnknownField(f"broker{path}: there is no field '{name}'{meant or '.'}")
    return RequestMalformed(f"broker{path}: {worded(told, Wishes, path)}.")


def _micros(price: Decimal | None) -> int | None:
    if price is None:
        return None
    try:
        return parse_rate_micros(_plain(price))
    except MoneyError as error:
        raise RequestMalformed(f"broker.max_price: {error}.") from None


def _plain(amount: Decimal) -> str:
    """Return an amount without an exponent. Raises AmountMalformed for one of absurd length."""
    if amount.is_finite() and (
        abs(amount.adjusted()) > _DIGITS_MAX or len(amount.as_tuple().digits) > _DIGITS_MAX
    ):
        # Written out, a few bytes of exponent would become gigabytes.
        raise AmountMalformed("has too many digits")
    return f"{amount:f}"
