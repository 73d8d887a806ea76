"""Gives each server of the demo a port of 127.0.0.1, at later starts the same one if it is free."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from broker.embedded.port import free_port


class Ports:
    """Ports by name; kept in a file, so that a provider registers the same address every time."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._known: dict[str, int] = {}
        self._given: dict[str, int] = {}
        if record.exists():
            self._known = json.loads(record.read_text("utf-8"))

    def of(self, name: str) -> int:
        """The port with this name; a new one when the one it had is taken."""
        if name not in self._given:
            port = self._known.get(name)
            while port is None or port in self._given.values() or not _is_free(port):
                port = free_port()
            self._given[name] = port
        return self._given[name]

    def save(self) -> None:
        """Remember what was given; names not asked for this time stay remembered."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps(self._known | self._given, indent=1), "utf-8")
        fresh.replace(self._record)


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As the servers do it: what the last run's connections left behind is no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
