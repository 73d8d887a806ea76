"""A deployment's own Ed25519 key for receipts: made once, kept in a file that only its owner reads.

The broker is told the public half alone, so it can check a receipt and cannot make one. The file is
PEM (PKCS #8). A rotation leaves the key before it as `<file>.former` until the broker has taken the
new one, for the former key endorses it. Needs the extra `receipts` (the package `cryptography`).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from provider_sdk.protocol import ReceiptKeyClaim, ReceiptKeyOffer
from provider_sdk.signing import KeyUnusable, claim_message, key_id_of

OTHERS = 0o077
"""The bits of a file's mode that let anybody but its owner at it."""


class ReceiptKey:
    """A key in memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        public = private.public_key().public_bytes_raw()
        self.public_key = public.hex()
        self.id = key_id_of(public)

    def sign(self, message: bytes) -> str:
        """The signature in hex."""
        return self._private.sign(message).hex()

    def offer(self, deployment_id: str, former: ReceiptKey | None) -> ReceiptKeyOffer:
        """What brings this key to the broker, endorsed by the key that it follows on."""
        claim = ReceiptKeyClaim(deployment_id=deployment_id, public_key=self.public_key)
        text = msgspec.json.encode(claim).decode()
        message = claim_message(text)
        return ReceiptKeyOffer(
            claim_json=text,
            signature=self.sign(message),
            endorsed_by=None if former is None else former.id,
            endorsement=None if former is None else former.sign(message),
        )


class KeyFile:
    """Where a deployment's key is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._former_path = path.with_name(path.name + ".former")

    def key(self) -> ReceiptKey:
        """The key, made when there is none yet. `KeyUnusable`."""
        try:
            if not self.path.exists():
                _make(self.path)
            return _read(self.path)
        except OSError as error:
            raise KeyUnusable(f"{self.path}: {error.strerror or error}") from error

    def former(self) -> ReceiptKey | None:
        """The key before the last rotation, until it is forgotten. `KeyUnusable`."""
        try:
            return _read(self._former_path) if self._former_path.exists() else None
        except OSError as error:
            raise KeyUnusable(f"{self._former_path}: {error.strerror or error}") from error

    def forget_former(self) -> None:
        """The broker has taken the new key: the former one is of no more use."""
        self._former_path.unlink(missing_ok=True)

    def rotate(self) -> ReceiptKey:
        """Make a new key; a running agent takes it up when it is started again. `KeyUnusable`."""
        if self._former_path.exists():
            raise KeyUnusable(
                f"{self._former_path} is still there: the broker has not taken the last new key "
                "yet; start the agent first"
            )
        self.key()
        try:
            self.path.rename(self._former_path)
        except OSError as error:
            raise KeyUnusable(f"{self.path}: {error.strerror or error}") from error
        return self.key()


def _make(path: Path) -> None:
    """Write a new key: whole, for its owner alone, and never over another."""
    text = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass  # another agent was quicker: its key it is
    finally:
        fresh.unlink()


def _read(path: Path) -> ReceiptKey:
    if path.stat().st_mode & OTHERS:
        raise KeyUnusable(f"{path} can be read by others: chmod 600 {path}")
    try:
        private = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{path} holds no private key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} holds a key of another kind than Ed25519")
    return ReceiptKey(private)
