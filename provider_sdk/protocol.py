"""The wire messages between a provider's agent and the broker, `protocol: 1`.

Every message is a msgspec struct that refuses unknown fields, so a typing error in a provider's
file is named instead of ignored. Units stand last in each name; prices are decimal strings in USD.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

PROTOCOL = 1
WELL_KNOWN_PATH = "/.well-known/model-broker"
DNS_LABEL = "_model-broker"

Kind = Literal["openai", "kserve"]
Task = Literal["chat", "completion", "embedding", "infer"]
Proof = Literal["well-known", "dns", "credential"]
Tier = Literal["priority", "flex", "batch"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=63)]
"""No two separators in a row: `--` stands for the slash of `provider/endpoint` in a KServe path."""
Decimal = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Promise = Annotated[int, msgspec.Meta(ge=1, le=3_600_000)]
REPORTED_CALLS_MAX = 1_000_000_000
"""No inference server has more calls at once: whoever says so is not understood."""
ReportedCalls = Annotated[int, msgspec.Meta(ge=0, le=REPORTED_CALLS_MAX)]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of all wire messages."""


class DataPolicy(Message, frozen=True, kw_only=True):
    """What the provider does with prompts and answers."""

    retains_data: bool = False
    trains_on_data: bool = False
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 0


class TokenBand(Message, frozen=True, kw_only=True, tag_field="per", tag="mtok"):
    """A price band in USD per million tokens, in and out: floor <= list <= ceiling, floor > 0."""

    floor_in: Decimal
    list_in: Decimal
    ceiling_in: Decimal
    floor_out: Decimal
    list_out: Decimal
    ceiling_out: Decimal


class CallBand(Message, frozen=True, kw_only=True, tag_field="per", tag="call"):
    """A price band in USD per call: floor <= list <= ceiling, floor > 0."""

    floor_call: Decimal
    list_call: Decimal
    ceiling_call: Decimal


class EndpointOffer(Message, frozen=True, kw_only=True):
    """One version of one model on a deployment, and the standing terms it is offered on."""

    name: Name
    model: str
    version: str = "1"
    upstream_model: str | None = None
    """The name the inference server knows the model by; `model` when absent."""
    tasks: Annotated[list[Task], msgspec.Meta(min_length=1)]
    domains: dict[Name, Fraction] = {}
    """Claimed domains, each with the quality the provider declares there, 0 to 1."""
    quality: Fraction = 0.5
    """Declared quality outside the claimed domains."""
    context_length_tokens: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    tokenizer_json: str | None = None
    """The text of a Hugging Face `tokenizer.json`, from which the broker counts tokens exactly."""
    visible_to: list[str] | None = None
    """Account names that may see the endpoint; all when absent."""
    promised_ttft_ms: Promise | None = None
    """The first token of a stream comes within this, or a share of the charge goes back."""
    promised_latency_ms: Promise | None = None
    """The whole of an answer that is no stream comes within this, or a share goes back."""
    tiers: dict[Tier, Decimal] = {}
    """What other tiers cost, as a factor on the price such as `{"priority": "1.5", "flex": "0.5"}`,
    within the band all the same. A tier that is not named is not served."""
    price: TokenBand | CallBand


class DeploymentOffer(Message, frozen=True, kw_only=True):
    """A server at a URL, and the endpoints on it."""

    protocol: Literal[1] = 1
    name: Name
    url: str
    """Origin and optional path prefix, such as `https://gpu1.acme.example/llm`; no `/v1`, `/v2`."""
    kind: Kind
    capacity: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    """Concurrent calls it serves without queueing."""
    region: str = "unknown"
    data_policy: DataPolicy = DataPolicy()
    proof: Proof = "well-known"
    credential: str | None = None
    """Sent upstream as `Authorization: Bearer ...`; kept encrypted by the broker."""
    endpoints: Annotated[list[EndpointOffer], msgspec.Meta(min_length=1, max_length=1000)]


class Registered(Message, frozen=True, kw_only=True):
    """The broker's answer to a registration: what to prove, and the key to sign heartbeats with."""

    protocol: Literal[1] = 1
    deployment_id: str
    status: Literal["unproven", "listed", "awaiting_approval", "failed"]
    nonce: str
    """To be answered as plain text under `WELL_KNOWN_PATH`, or as TXT record `DNS_LABEL.<host>`."""
    signing_key: str
    """Hex, 32 bytes; HMAC-SHA256 key of this deployment."""
    heartbeat_interval_ms: int


class ProbeReport(Message, frozen=True, kw_only=True):
    """One check the broker made before listing, and exactly what it found."""

    check: str
    ok: bool
    detail: str = ""
    latency_ms: float | None = None


class Verified(Message, frozen=True, kw_only=True):
    """The outcome of proof and probes."""

    protocol: Literal[1] = 1
    deployment_id: str
    status: Literal["listed", "failed", "awaiting_approval"]
    reports: list[ProbeReport]


class LoadReport(Message, frozen=True, kw_only=True):
    """What the inference server says of itself; `None` where it says nothing."""

    running: ReportedCalls | None = None
    waiting: ReportedCalls | None = None
    kv_usage: Fraction | None = None


class Heartbeat(Message, frozen=True, kw_only=True):
    """One deployment's state at one moment."""

    deployment_id: str
    sequence: int
    """Rises with every heartbeat of a deployment, over restarts too: begins at the time in ns."""
    sent_at_ms: int
    """Unix time; the broker refuses what is more than `REPLAY_WINDOW_MS` off."""
    status: Literal["ready", "draining", "down"]
    load: LoadReport = LoadReport()


REPLAY_WINDOW_MS = 30_000


class SignedHeartbeat(Message, frozen=True, kw_only=True):
    """A heartbeat as the exact JSON text that was signed: no re-encoding breaks the signature."""

    deployment_id: str
    heartbeat_json: str
    signature: str
    """Hex HMAC-SHA256 of `heartbeat_json` under the deployment's key."""


class HeartbeatBatch(Message, frozen=True, kw_only=True):
    """All heartbeats of one agent: one request per interval, however many deployments."""

    protocol: Literal[1] = 1
    heartbeats: Annotated[list[SignedHeartbeat], msgspec.Meta(min_length=1, max_length=10_000)]


Reason = Literal["", "unknown_deployment", "bad_signature", "replayed", "clock_skew", "malformed"]
"""Why a heartbeat was not accepted."""


class HeartbeatResult(Message, frozen=True, kw_only=True):
    """What became of one heartbeat."""

    deployment_id: str
    accepted: bool
    reason: Reason = ""
    register_again: bool = False


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """The broker's answer to a batch, with the interval it asks for from now on."""

    protocol: Literal[1] = 1
    interval_ms: int
    results: list[HeartbeatResult]


PublicKeyHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
SignatureHex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}$")]
KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
"""The first half of the SHA-256 of an Ed25519 public key."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
UnixMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]


class ReceiptKeyClaim(Message, frozen=True, kw_only=True):
    """What an agent signs to show that the key it brings for a deployment is its own."""

    deployment_id: str
    public_key: PublicKeyHex


class ReceiptKeyOffer(Message, frozen=True, kw_only=True):
    """The key that a deployment's receipts are signed with from now on, as an exact JSON text."""

    protocol: Literal[1] = 1
    claim_json: str
    signature: SignatureHex
    """Ed25519, of `claim_json` by the key in it."""
    endorsed_by: KeyId | None = None
    endorsement: SignatureHex | None = None
    """Of `claim_json` by the key that it follows on, which shows that no stranger brings it."""


class ReceiptKeyKept(Message, frozen=True, kw_only=True):
    """The broker's answer to a key: from `registered_at_ms` on it expects receipts."""

    protocol: Literal[1] = 1
    deployment_id: str
    key_id: KeyId
    registered_at_ms: int
    endorsed: bool


class Receipt(Message, frozen=True, kw_only=True):
    """What a deployment served of one attempt of a call, by the agent's own word and clock."""

    deployment_id: str
    sequence: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    """Another for each receipt of a deployment, over restarts too: begins at the time in ns."""
    call_id: str
    attempt: Annotated[int, msgspec.Meta(ge=0, le=32_767)]
    model: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """As the server's answer or the path names it."""
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None
    """The HTTP status of the answer; `None` where the server gave none."""
    whole: bool
    """Whether the answer was handed over to its end."""
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    """As the server's answer counts them; `None` where it does not."""
    bytes_in: Count
    bytes_out: Count
    """Of the bodies of request and answer, as they passed."""
    started_at_ms: UnixMs
    first_byte_at_ms: UnixMs | None = None
    """Of the answer's body."""
    ended_at_ms: UnixMs


RECEIPTS_MAX = 500
"""Of one batch."""


class SignedReceipt(Message, frozen=True, kw_only=True):
    """A receipt as the exact JSON text that was signed."""

    deployment_id: str
    key_id: KeyId
    receipt_json: Annotated[str, msgspec.Meta(max_length=4_096)]
    signature: SignatureHex
    """Ed25519, by the deployment's own key, of which the broker knows the public half only."""


class ReceiptBatch(Message, frozen=True, kw_only=True):
    """Receipts of one agent, of any of its deployments."""

    protocol: Literal[1] = 1
    receipts: Annotated[list[SignedReceipt], msgspec.Meta(min_length=1, max_length=RECEIPTS_MAX)]


ReceiptDoubt = Literal[
    "unknown_key",
    "foreign",
    "bad_signature",
    "malformed",
    "too_late",
    "sequence_reused",
    "contradicts",
]
"""Why a receipt is not kept: `foreign` is one of another deployment than the key's, `contradicts`
one that says something else than the receipt that is there already."""


class ReceiptResult(Message, frozen=True, kw_only=True):
    """What became of one receipt; one that was there already is kept, and a duplicate."""

    kept: bool
    reason: Literal["", "duplicate"] | ReceiptDoubt = ""


class ReceiptReply(Message, frozen=True, kw_only=True):
    """The broker's answer to a batch of receipts, in the same order."""

    protocol: Literal[1] = 1
    results: list[ReceiptResult]
