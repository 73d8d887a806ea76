"""The text of a key, `bk_<id>_<secret>`: drawn, taken apart, and the hash that is kept of it."""

from __future__ import annotations

import hashlib
import secrets
import string

PREFIX = "bk"
_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"  # no l, o, 0, 1, which people confuse
_ID_CHARACTERS = 12
_SECRET_ALPHABET = string.ascii_letters + string.digits  # no underscore, which parts the key
_SECRET_CHARACTERS = 43  # 43 x log2(62) = 256 bits


def new_id() -> str:
    """Draw an id."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))


def new_secret() -> str:
    """Draw a secret."""
    return "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_CHARACTERS))


def written(key_id: str, secret: str) -> str:
    """Return the whole text, which only its owner keeps."""
    return f"{PREFIX}_{key_id}_{secret}"


def parse(text: str) -> tuple[str, str] | None:
    """Return (id, secret) of a key's text, None when it has not the form of a key."""
    parts = text.split("_")
    if len(parts) != 3 or parts[0] != PREFIX or not parts[1] or not parts[2]:
        return None
    return parts[1], parts[2]


def sha256_of(secret: str) -> bytes:
    """Return what is stored of a secret: of 256 random bits, it needs no slow hash."""
    return hashlib.sha256(secret.encode()).digest()
