"""Reads `provider.toml`, and says by line or field what is wrong with it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from provider_sdk.complaints import spoken
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import CallBand, TokenBand

KEY_VARIABLE = "BROKER_PROVIDER_KEY"
_ADDED = ("/v1", "/v2", "/api")

EXAMPLE = """\
broker = "https://broker.example"
key = "bk_..."                       # or the environment variable BROKER_PROVIDER_KEY

[[deployments]]
name = "gpu1"
url = "https://gpu1.acme.example"    # where the broker reaches you, without /v1 or /v2
kind = "openai"                      # or "kserve" (Triton)
capacity = 8                         # calls served at once without queueing
server = "http://127.0.0.1:8001"     # your inference server
front = "0.0.0.0:9001"               # the agent listens here, before the server (optional)
region = "eu"
credential = "..."                   # the broker shows it with each call (optional)
# receipts_key = "gpu1-receipts.pem" # sign what you served with this key; made when not there
# server_credential = "..."          # the key your own server wants (optional)
# backend = "auto"                   # vllm, sglang, tgi, llamacpp, triton, trtllm, none
# metrics = "http://127.0.0.1:8002/metrics"
# proof = "well-known"               # or "dns", or "credential" (an operator must approve)
# data_policy = { retains_data = false, trains_on_data = false, retention_days = 0 }

[[deployments.endpoints]]
name = "lawyer"
model = "lawyer-7b"
tasks = ["chat"]                     # chat, completion, embedding, infer
domains = { law = 0.9 }              # what it is good at, and how good you say it is
context_length_tokens = 8192
# upstream_model = "/models/lawyer"  # the name your server knows it by
# tokenizer = "tokenizer.json"       # a file beside this one: the broker counts exactly
# visible_to = ["acme"]              # accounts; everybody when left out
# promised_ttft_ms = 800             # first token of a stream; missed, a share goes back
# promised_latency_ms = 5000         # an answer that is no stream, whole
# tiers = { priority = "1.5", flex = "0.5", batch = "0.4" }   # factors on the price

[deployments.endpoints.price]        # USD per million tokens; or floor_call, list_call, ...
floor_in = "0.10"
list_in = "0.20"
ceiling_in = "1.00"
floor_out = "0.30"
list_out = "0.60"
ceiling_out = "3.00"
"""


class ConfigWrong(Exception):
    """The file cannot be used; the text says which line or field, and why."""


@dataclass(frozen=True, slots=True)
class Config:
    """A provider's file, read and found good."""

    broker: str
    key: str
    deployments: list[Deployment]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    broker: str
    key: str = ""
    deployments: list[Deployment]


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """The provider's file at `path`; `ConfigWrong` with everything a reader needs to mend it."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigWrong(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigWrong(f"{path}: {error}") from error
    try:
        _inline_tokenizers(raw, path.parent)
    except ConfigWrong as error:
        raise ConfigWrong(f"{path}: {error}") from error
    _tag_prices(raw)
    _place_keys(raw, path.parent)
    try:
        file = msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        raise ConfigWrong(f"{path}: {spoken(str(error))}") from error
    key = file.key or environment.get(KEY_VARIABLE, "")
    if not key:
        raise ConfigWrong(f"{path}: field `key`: missing, and {KEY_VARIABLE} is not set either")
    _check_url(path, "broker", file.broker)
    if not file.deployments:
        raise ConfigWrong(f"{path}: field `deployments`: there are none")
    for index, deployment in enumerate(file.deployments):
        _check(path, f"deployments[{index}]", deployment)
    _check_distinct(path, file.deployments)
    return Config(file.broker, key, file.deployments)


def _inline_tokenizers(raw: dict[str, Any], folder: Path) -> None:
    """Replace `tokenizer = "file"` by the text of the file."""
    for i, deployment in enumerate(_tables(raw.get("deployments"))):
        for j, endpoint in enumerate(_tables(deployment.get("endpoints"))):
            if "tokenizer" not in endpoint:
                continue
            field = f"deployments[{i}].endpoints[{j}].tokenizer"
            try:
                text = (folder / str(endpoint.pop("tokenizer"))).read_text("utf-8")
                msgspec.json.decode(text)
            except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
                raise ConfigWrong(f"field `{field}`: {error}") from error
            endpoint["tokenizer_json"] = text


def _tag_prices(raw: dict[str, Any]) -> None:
    """Say of each price which band it is; the names of its fields tell."""
    for deployment in _tables(raw.get("deployments")):
        for endpoint in _tables(deployment.get("endpoints")):
            price = endpoint.get("price")
            if isinstance(price, dict):
                by_call = any(name.endswith("_call") for name in price)
                kind = (CallBand if by_call else TokenBand).__struct_config__
                if kind.tag_field is not None:
                    price.setdefault(kind.tag_field, kind.tag)


def _place_keys(raw: dict[str, Any], folder: Path) -> None:
    """Let the files of keys stand beside this one."""
    for deployment in _tables(raw.get("deployments")):
        if isinstance(deployment.get("receipts_key"), str):
            deployment["receipts_key"] = str(folder / deployment["receipts_key"])


def _tables(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _check(path: Path, field: str, deployment: Deployment) -> None:
    _check_url(path, f"{field}.url", deployment.url)
    _check_url(path, f"{field}.server", deployment.server)
    if deployment.metrics is not None:
        _check_url(path, f"{field}.metrics", deployment.metrics)
    if deployment.proof == "credential" and deployment.credential is None:
        raise ConfigWrong(
            f"{path}: field `{field}.credential`: missing, and the `proof` rests on it"
        )
    if deployment.front is not None:
        host, _colon, port = deployment.front.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ConfigWrong(f"{path}: field `{field}.front`: not host:port, such as 0.0.0.0:9001")
    elif deployment.receipts_key is not None:
        raise ConfigWrong(
            f"{path}: field `{field}.receipts_key`: receipts are of calls through a `front`"
        )
    for index, endpoint in enumerate(deployment.endpoints):
        _check_band(path, f"{field}.endpoints[{index}].price", endpoint.price)


def _check_url(path: Path, field: str, url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise ConfigWrong(f"{path}: field `{field}`: {url!r} does not begin with http(s)://")
    added = next((each for each in _ADDED if url.rstrip("/").endswith(each)), None)
    if added is not None:
        raise ConfigWrong(f"{path}: field `{field}`: leave off {added}, which is added")


def _check_band(path: Path, field: str, band: TokenBand | CallBand) -> None:
    for unit in ("call",) if isinstance(band, CallBand) else ("in", "out"):
        floor, listed, ceiling = (
            Decimal(getattr(band, f"{level}_{unit}")) for level in ("floor", "list", "ceiling")
        )
        if not 0 < floor <= listed <= ceiling:
            wanted = f"0 < floor_{unit} <= list_{unit} <= ceiling_{unit}"
            raise ConfigWrong(f"{path}: field `{field}`: {wanted} does not hold")


def _check_distinct(path: Path, deployments: list[Deployment]) -> None:
    names = [deployment.name for deployment in deployments]
    fronts = [d.front for d in deployments if d.front and not d.front.endswith(":0")]
    keys = [deployment.receipts_key for deployment in deployments if deployment.receipts_key]
    for field, values in (("name", names), ("front", fronts), ("receipts_key", keys)):
        for value in values:
            if values.count(value) > 1:
                raise ConfigWrong(f"{path}: two deployments have the {field} {value!r}")
