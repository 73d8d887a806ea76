"""Signs heartbeats with a deployment's key, and says whether a signed heartbeat may be believed.

HMAC-SHA256 over the exact JSON text; against replay, a heartbeat carries a clock within
`REPLAY_WINDOW_MS` and a sequence that only rises. Receipts are signed with Ed25519, which is not
done here: the standard library has none. What exactly is signed is said here for both sides.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from provider_sdk.protocol import REPLAY_WINDOW_MS, Heartbeat, SignedHeartbeat

Doubt = Literal["bad_signature", "replayed", "clock_skew", "malformed"]


class KeyUnusable(Exception):
    """The key for receipts cannot be read, made or used; the text says why."""


def signature_of(text: str, signing_key: str) -> str:
    """The hex HMAC-SHA256 of `text`; `signing_key` is hex, `ValueError` when it is not."""
    return hmac.new(bytes.fromhex(signing_key), text.encode(), hashlib.sha256).hexdigest()


def is_signed(text: str, signature: str, signing_key: str) -> bool:
    """Whether `signature` is that of `text`; takes the same time whatever is wrong with it."""
    expected = signature_of(text, signing_key).encode()
    return hmac.compare_digest(expected, signature.lower().encode("utf-8", "replace"))


def sign(heartbeat: Heartbeat, signing_key: str) -> SignedHeartbeat:
    """A heartbeat ready to be sent."""
    text = msgspec.json.encode(heartbeat).decode()
    return SignedHeartbeat(
        deployment_id=heartbeat.deployment_id,
        heartbeat_json=text,
        signature=signature_of(text, signing_key),
    )


def examine(
    signed: SignedHeartbeat, signing_key: str, *, last_sequence: int, now_ms: int
) -> Heartbeat | Doubt:
    """The heartbeat inside, or the reason not to believe it.

    `last_sequence` is the highest believed so far (0 when there is none), `now_ms` Unix time.
    """
    if not is_signed(signed.heartbeat_json, signed.signature, signing_key):
        return "bad_signature"
    try:
        heartbeat = msgspec.json.decode(signed.heartbeat_json, type=Heartbeat)
    except (msgspec.DecodeError, UnicodeError):
        return "malformed"
    if heartbeat.deployment_id != signed.deployment_id:
        return "malformed"
    if abs(now_ms - heartbeat.sent_at_ms) > REPLAY_WINDOW_MS:
        return "clock_skew"
    if heartbeat.sequence <= last_sequence:
        return "replayed"
    return heartbeat


def key_id_of(public_key: bytes) -> str:
    """The id of an Ed25519 public key (32 bytes): half of its SHA-256, in hex."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def receipt_message(receipt_json: str) -> bytes:
    """The bytes that are signed for a receipt; no other message begins like that."""
    return b"model-broker receipt 1\n" + receipt_json.encode()


def claim_message(claim_json: str) -> bytes:
    """The bytes that are signed, and endorsed, to bring a key."""
    return b"model-broker receipt key 1\n" + claim_json.encode()
