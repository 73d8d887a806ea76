"""A key for receipts is made once, kept for its owner alone, and rotated with the former's word."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from provider_sdk.protocol import ReceiptKeyClaim
from provider_sdk.receipt_key import KeyFile, ReceiptKey
from provider_sdk.signing import KeyUnusable, claim_message


def verify(key: ReceiptKey, signature: str | None, message: bytes) -> None:
    assert signature is not None
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key))
    public.verify(bytes.fromhex(signature), message)


def test_a_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key.pem")
    key = file.key()
    assert file.key().public_key == key.public_key
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]
    verify(key, key.sign(b"message"), b"message")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = KeyFile(tmp_path / "key.pem")
    file.key()
    file.path.chmod(mode)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        file.key()


def test_a_file_that_holds_no_such_key_is_named(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key.pem")
    file.path.touch(0o600)
    with pytest.raises(KeyUnusable, match="no private key"):
        file.key()
    rsa = generate_private_key(65_537, 2_048)
    file.path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyUnusable, match="another kind"):
        file.key()
    with pytest.raises(KeyUnusable, match="No such file"):
        KeyFile(tmp_path / "nowhere" / "key.pem").key()


def test_a_rotation_keeps_the_former_key_until_the_broker_has_the_new_one(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "key.pem")
    before = file.key()
    after = file.rotate()
    former = file.former()
    assert former is not None
    assert (former.id, file.key().id) == (before.id, after.id)
    assert before.id != after.id
    with pytest.raises(KeyUnusable, match="has not taken"):
        file.rotate()
    file.forget_former()
    assert file.former() is None
    file.rotate()


def test_an_offer_shows_that_the_key_is_there_and_that_the_former_one_agrees(
    tmp_path: Path,
) -> None:
    file = KeyFile(tmp_path / "key.pem")
    first = file.key().offer("d1", None)
    assert (first.endorsed_by, first.endorsement) == (None, None)
    key = file.rotate()
    former = file.former()
    assert former is not None
    offer = key.offer("d1", former)
    claim = msgspec.json.decode(offer.claim_json, type=ReceiptKeyClaim)
    assert (claim.deployment_id, claim.public_key) == ("d1", key.public_key)
    verify(key, offer.signature, claim_message(offer.claim_json))
    verify(former, offer.endorsement, claim_message(offer.claim_json))
    assert offer.endorsed_by == former.id


WITHOUT = """\
import sys
sys.modules["cryptography"] = None
import provider_sdk.agent, provider_sdk.cli
from provider_sdk.receipts import key_file
from provider_sdk.signing import KeyUnusable
try:
    key_file("key.pem")
except KeyUnusable as error:
    print(error)
"""


def test_the_agent_runs_without_the_extra_and_says_when_it_is_needed() -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT], check=True, capture_output=True, text=True, timeout=30
    )
    assert told.stdout.startswith("receipts need the extra: pip install")
