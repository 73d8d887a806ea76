"""Packs plans, cells and outcomes into text, small enough to be sent to workers and kept in tables.

JSON writes every float so that the same float is read, so nothing changes on the way.
"""

from __future__ import annotations

import base64
import zlib
from typing import TypeVar

import msgspec

Content = TypeVar("Content")
QUEUE = "simulations"
"""Where tasks of simulations wait for workers of their own."""
CELL_TASK = "simulations.cell"
"""The task that runs one cell, for whoever can wait for its outcome."""
CALL_OFF = "SIGUSR1"
"""What the process hears whose cell nobody waits for any more; those of Celery live on after it."""
SIZE_MAX = 256 * 2**20
"""Bytes of what is unpacked: more is no plan, cell or outcome."""


def pack(content: object) -> str:
    """Return the text of a struct."""
    return base64.b64encode(zlib.compress(msgspec.json.encode(content), 6)).decode()


def unpack(text: str, kind: type[Content]) -> Content:
    """Return the struct of a text that `pack` wrote."""
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(base64.b64decode(text), SIZE_MAX)
    return msgspec.json.decode(content, type=kind)
