"""The state folder of a broker on one machine: its secrets, and how to reach it while it runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from broker.errors import SettingInvalid

Make = Callable[[], str]
_KEY_FILE: Final = "secret.key"


class Running(msgspec.Struct, frozen=True):
    """Where the parts of a running broker are."""

    pid: int
    url: str
    database_url: str
    valkey_url: str
    allow_networks: str = ""
    """Private networks that it may connect to."""


class StateFolder:
    """Everything that `broker up` keeps; secrets are readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def secret_key(self) -> str:
        """Return BROKER_SECRET_KEY, or the key of the broker of this folder.

        Raises SettingInvalid without either: with one made up here no secret of the market's could
        be opened, and nobody else could open what was sealed.
        """
        found = os.environ.get("BROKER_SECRET_KEY") or self.recall(_KEY_FILE)
        if not found:
            raise SettingInvalid(
                "BROKER_SECRET_KEY is not set: set the one that the brokers of this market have."
            )
        return found

    def make_secret_key(self) -> str:
        """Return BROKER_SECRET_KEY, or the key of this folder, made at the first call."""
        given = os.environ.get("BROKER_SECRET_KEY")
        return given or self.remember(_KEY_FILE, lambda: secrets.token_hex(32))

    def remember(self, name: str, make: Make) -> str:
        """Return what the file `name` holds, made and written at the first call."""
        file = self.path / name
        if not file.exists():
            self._write(file, make() + "\n")
        return file.read_text().strip()

    def recall(self, name: str) -> str | None:
        """Return what the file `name` holds, None when there is none."""
        file = self.path / name
        return file.read_text().strip() if file.exists() else None

    def place(self, name: str) -> Path:
        """Return where others may keep the file `name`; the folder is there then."""
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def announce(self, running: Running) -> None:
        """Tell the other commands where the broker is."""
        self._write(self.path / "running.json", msgspec.json.encode(running).decode())

    def retract(self) -> None:
        """The broker has stopped."""
        (self.path / "running.json").unlink(missing_ok=True)

    def running(self) -> Running:
        """Return where the broker is. Raises SettingInvalid when none runs here."""
        file = self.path / "running.json"
        if not file.exists():
            raise SettingInvalid(
                f"No broker runs with the state folder {self.path}. Start one with 'broker up', "
                "or set DATABASE_URL."
            )
        return msgspec.json.decode(file.read_bytes(), type=Running)

    def url(self) -> str:
        """Return BROKER_PUBLIC_URL, or that of the broker that runs here. Raises SettingInvalid."""
        given = os.environ.get("BROKER_PUBLIC_URL")
        return given.rstrip("/") if given else self.running().url

    def database_url(self) -> str:
        """Return DATABASE_URL, or that of the broker that runs here. Raises SettingInvalid."""
        return os.environ.get("DATABASE_URL") or self.running().database_url

    def valkey_url(self) -> str:
        """Return VALKEY_URL, or that of the broker that runs here. Raises SettingInvalid."""
        return os.environ.get("VALKEY_URL") or self.running().valkey_url

    def allow_networks(self) -> str:
        """Return BROKER_ALLOW_NETWORKS, or what the broker that runs here was started with."""
        given = os.environ.get("BROKER_ALLOW_NETWORKS")
        if given is not None or not (self.path / "running.json").exists():
            return given or ""
        return self.running().allow_networks

    def _write(self, file: Path, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        fresh.rename(file)
