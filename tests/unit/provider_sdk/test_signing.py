"""Heartbeats are believed only when signed, fresh and new."""

from __future__ import annotations

import msgspec
import pytest

from provider_sdk.protocol import REPLAY_WINDOW_MS, Heartbeat, LoadReport, SignedHeartbeat
from provider_sdk.signing import examine, is_signed, sign, signature_of

KEY = "11" * 32
NOW_MS = 1_700_000_000_000
HEARTBEAT = Heartbeat(
    deployment_id="d1", sequence=5, sent_at_ms=NOW_MS, status="ready", load=LoadReport(running=2)
)


def test_the_signature_is_hmac_sha256_in_hex() -> None:
    # RFC 4231, test case 2
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature_of("what do ya want for nothing?", b"Jefe".hex()) == expected


def test_a_signed_heartbeat_comes_out_as_it_went_in() -> None:
    assert examine(sign(HEARTBEAT, KEY), KEY, last_sequence=4, now_ms=NOW_MS) == HEARTBEAT


@pytest.mark.parametrize("signature", ["", "00" * 32, "é" * 64, "zz"])
def test_another_signature_is_not_believed(signature: str) -> None:
    assert not is_signed("text", signature, KEY)
    signed = msgspec.structs.replace(sign(HEARTBEAT, KEY), signature=signature)
    assert examine(signed, KEY, last_sequence=0, now_ms=NOW_MS) == "bad_signature"


def test_a_changed_text_or_key_is_not_believed() -> None:
    signed = sign(HEARTBEAT, KEY)
    changed = msgspec.structs.replace(signed, heartbeat_json=signed.heartbeat_json + " ")
    assert examine(changed, KEY, last_sequence=0, now_ms=NOW_MS) == "bad_signature"
    assert examine(signed, "22" * 32, last_sequence=0, now_ms=NOW_MS) == "bad_signature"


@pytest.mark.parametrize("last_sequence", [5, 6])
def test_a_sequence_must_rise(last_sequence: int) -> None:
    found = examine(sign(HEARTBEAT, KEY), KEY, last_sequence=last_sequence, now_ms=NOW_MS)
    assert found == "replayed"


@pytest.mark.parametrize("off_ms", [-REPLAY_WINDOW_MS - 1, REPLAY_WINDOW_MS + 1])
def test_a_clock_far_off_is_named(off_ms: int) -> None:
    found = examine(sign(HEARTBEAT, KEY), KEY, last_sequence=0, now_ms=NOW_MS + off_ms)
    assert found == "clock_skew"


def test_the_edge_of_the_window_is_inside() -> None:
    signed = sign(HEARTBEAT, KEY)
    assert examine(signed, KEY, last_sequence=0, now_ms=NOW_MS + REPLAY_WINDOW_MS) == HEARTBEAT


def test_a_heartbeat_of_another_deployment_under_this_key_is_malformed() -> None:
    other = msgspec.structs.replace(sign(HEARTBEAT, KEY), deployment_id="d2")
    assert examine(other, KEY, last_sequence=0, now_ms=NOW_MS) == "malformed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sequence": "x"}'])
def test_signed_nonsense_is_malformed(text: str) -> None:
    signed = SignedHeartbeat(
        deployment_id="d1", heartbeat_json=text, signature=signature_of(text, KEY)
    )
    assert examine(signed, KEY, last_sequence=0, now_ms=NOW_MS) == "malformed"
