"""What commands know of the broker that runs on their machine."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from broker.cli.local import policy
from broker.cli.state import Running, StateFolder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    for name in ("BROKER_ALLOW_NETWORKS", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return StateFolder(tmp_path)


def test_commands_reach_the_private_networks_that_the_broker_was_started_with(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("http://127.0.0.1:8000", "postgresql://me@127.0.0.1/broker", "redis://127.0.0.1:6379")
    folder.announce(Running(1, *where, allow_networks="10.0.0.0/8"))
    assert policy(folder).allowed_networks == (ip_network("10.0.0.0/8"),)
    assert policy(folder, "127.0.0.0/8").allowed_networks == (ip_network("127.0.0.0/8"),)
    assert policy(folder, "").allowed_networks == ()
    monkeypatch.setenv("BROKER_ALLOW_NETWORKS", "192.168.0.0/16")
    assert policy(folder).allowed_networks == (ip_network("192.168.0.0/16"),)
    monkeypatch.delenv("BROKER_ALLOW_NETWORKS")
    folder.retract()
    assert folder.allow_networks() == ""
