"""What a provider's offer means, checked; a fault is refused with the name of its field."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from broker.core.catalog import Band, Kind, Task
from broker.errors import RequestMalformed
from pricing.money import MoneyError, parse_call_rate_nanos, parse_rate_micros
from pricing.tiers import BPS, FactorMalformed, Factors, Tier, check_factor
from provider_sdk.protocol import CallBand, DeploymentOffer, EndpointOffer, TokenBand
from provider_sdk.protocol import Tier as TierName

_TEXT_CHARACTERS_MAX = 200
_URL_CHARACTERS_MAX = 2_000
_TOKENIZER_CHARACTERS_MAX = 32 * 2**20
_RESERVED_MODELS = frozenset({"auto"})
_TASKS = {
    Kind.OPENAI: frozenset({Task.CHAT, Task.COMPLETION, Task.EMBEDDING}),
    Kind.KSERVE: frozenset({Task.INFER}),
}


@dataclass(frozen=True, slots=True)
class Make:
    """What an endpoint is: when any of it changes, it is another endpoint."""

    model: str
    version: str
    upstream_model: str
    tasks: tuple[Task, ...]
    context_length_tokens: int | None
    max_output_tokens: int | None
    tokenizer_json: str | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What an endpoint is offered on: when any of it changes, the same endpoint has a new offer."""

    domains: dict[str, float]
    quality: float
    visible_to: tuple[UUID, ...] | None
    """Accounts that may see it, in order; None means all."""
    take_bps: int
    band: Band
    promised_ttft_ms: int | None = None
    """The first token of a stream comes within this."""
    promised_latency_ms: int | None = None
    """The whole of an answer that is no stream comes within this."""
    tiers: Factors = field(default_factory=dict)
    """Basis points of the price, by tier."""


def refuse(field: str, detail: str) -> RequestMalformed:
    """Return the refusal of a field, for the caller to raise."""
    return RequestMalformed(f"{field}: {detail}", facts={"field": field})


def checked_url(offer: DeploymentOffer) -> str:
    """Return the deployment's URL without a trailing slash. Raises RequestMalformed."""
    url = offer.url.rstrip("/")
    if len(url) > _URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise refuse("url", f"not a URL of at most {_URL_CHARACTERS_MAX} printable characters.")
    parts = _split(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refuse("url", "must begin with http:// or https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise refuse("url", "must not hold a name or password; use `credential`.")
    if parts.query or parts.fragment:
        raise refuse("url", "must not have a query or a fragment.")
    if parts.path.rsplit("/", 1)[-1] in ("v1", "v2"):
        raise refuse("url", "must not end in /v1 or /v2, which the broker adds itself.")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a port
    except ValueError as error:
        raise refuse("url", f"{error}.") from None
    return parts


def check_deployment(offer: DeploymentOffer) -> None:
    """Check what concerns the deployment as a whole. Raises RequestMalformed."""
    checked_url(offer)
    _name("region", offer.region)
    if offer.proof == "credential" and not offer.credential:
        raise refuse("credential", "is what `proof` rests on, so it must be there.")
    if offer.credential is not None:
        header_safe = offer.credential.isascii() and offer.credential.isprintable()
        if not offer.credential or not header_safe:
            raise refuse("credential", "must be printable ASCII, for it is sent in a header.")
    names = [each.name for each in offer.endpoints]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise refuse(f"endpoints[{place}].name", f"'{name}' stands twice in this offer.")


def make_of(offer: EndpointOffer, kind: Kind, field: str) -> Make:
    """Return what an endpoint is; `field` is its place in the offer. Raises RequestMalformed."""
    _name(f"{field}.model", offer.model)
    _name(f"{field}.version", offer.version)
    if offer.upstream_model is not None:
        _text(f"{field}.upstream_model", offer.upstream_model)
    if offer.model in _RESERVED_MODELS:
        raise refuse(f"{field}.model", f"'{offer.model}' is a word of the broker's own.")
    if "/" in offer.model:
        # Or a family could bear the name of another provider's endpoint and catch its calls.
        raise refuse(
            f"{field}.model",
            "must not hold a slash, which parts provider/endpoint; a name of that form that the "
            "server knows the model by goes into `upstream_model`.",
        )
    tasks = frozenset(map(Task, offer.tasks))
    if not tasks <= _TASKS[kind]:
        fit = ", ".join(sorted(_TASKS[kind]))
        raise refuse(f"{field}.tasks", f"a deployment of kind '{kind}' can serve: {fit}.")
    if len(offer.tokenizer_json or "") > _TOKENIZER_CHARACTERS_MAX:
        most = f"{_TOKENIZER_CHARACTERS_MAX:,}"
        raise refuse(f"{field}.tokenizer_json", f"has more than {most} characters.")
    return Make(
        model=offer.model,
        version=offer.version,
        upstream_model=offer.upstream_model or offer.model,
        tasks=tuple(sorted(tasks)),
        context_length_tokens=offer.context_length_tokens,
        max_output_tokens=offer.max_output_tokens,
        tokenizer_json=offer.tokenizer_json,
    )


def band_of(price: TokenBand | CallBand, field: str) -> Band:
    """Return the band in micro-dollars per Mtok, or nano-dollars per call. Raises RequestMalformed.

    One side of a token band may be 0 throughout (an embedding has no tokens out), not both.
    """
    if isinstance(price, CallBand):
        floor, listed, ceiling = _bounds(price, "call", field, parse_call_rate_nanos)
        if not ceiling:
            raise refuse(f"{field}.floor_call", "must be above 0.")
        return Band(floor_call_nanos=floor, list_call_nanos=listed, ceiling_call_nanos=ceiling)
    floor_in, list_in, ceiling_in = _bounds(price, "in", field, parse_rate_micros)
    floor_out, list_out, ceiling_out = _bounds(price, "out", field, parse_rate_micros)
    if not ceiling_in and not ceiling_out:
        raise refuse(f"{field}.floor_in", "must be above 0 where tokens out are free.")
    return Band(
        floor_in_micros=floor_in,
        list_in_micros=list_in,
        ceiling_in_micros=ceiling_in,
        floor_out_micros=floor_out,
        list_out_micros=list_out,
        ceiling_out_micros=ceiling_out,
    )


def factors_of(tiers: Mapping[TierName, str], field: str) -> Factors:
    """Return the tiers' factors in basis points. Raises RequestMalformed."""
    factors = {}
    for name, text in tiers.items():
        factor_bps = Decimal(text) * BPS
        if factor_bps != int(factor_bps):
            raise refuse(f"{field}.{name}", "has at most 4 decimals.")
        try:
            check_factor(Tier(name), int(factor_bps))
        except FactorMalformed as error:
            raise refuse(f"{field}.{name}", f"{error}.") from None
        factors[Tier(name)] = int(factor_bps)
    return factors


def _bounds(
    price: TokenBand | CallBand, side: str, field: str, parse: Callable[[str], int]
) -> tuple[int, int, int]:
    """Return floor, list and ceiling of one side: 0 < floor <= list <= ceiling, or 0 throughout."""
    values = []
    for bound in ("floor", "list", "ceiling"):
        try:
            values.append(parse(getattr(price, f"{bound}_{side}")))
        except MoneyError as error:
            raise refuse(f"{field}.{bound}_{side}", f"{error}.") from None
    floor, listed, ceiling = values
    if floor == 0 and ceiling > 0:
        raise refuse(f"{field}.floor_{side}", "must be above 0 where the ceiling is.")
    if listed < floor:
        raise refuse(f"{field}.list_{side}", "must not be below the floor.")
    if ceiling < listed:
        raise refuse(f"{field}.ceiling_{side}", "must not be below the list price.")
    return floor, listed, ceiling


def _name(field: str, text: str) -> None:
    """Refuse what would look like another's name and be none, for consumers choose by sight."""
    _text(field, text)
    if text != " ".join(unicodedata.normalize("NFKC", text).split()):
        raise refuse(
            field,
            "must have no space at its ends, nor two in a row, nor letters that merely look like "
            "others, such as of full width.",
        )


def _text(field: str, text: str) -> None:
    if not text.strip() or len(text) > _TEXT_CHARACTERS_MAX or not text.isprintable():
        raise refuse(field, f"must be 1 to {_TEXT_CHARACTERS_MAX} printable characters.")
