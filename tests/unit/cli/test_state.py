"""What commands know of the broker that runs on their machine."""

from __future__ import annotations

import shelve
from ipaddress import ip_network
from pathlib import Path

import pytest

from broker.cli.local import policy
from broker.cli.state import Running, StateFolder
from broker.cli.workers import quick_command
from broker.errors import SettingInvalid


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    for name in ("BROKER_ALLOW_NETWORKS", "BROKER_SECRET_KEY", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return StateFolder(tmp_path)


def test_commands_reach_the_private_networks_that_the_broker_was_started_with(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("http://127.0.0.1:8000", "postgresql://me@127.0.0.1/broker", "redis://127.0.0.1:6379")
    folder.announce(Running(1, *where, allow_networks="10.0.0.0/8"))
    folder.make_secret_key()
    assert policy(folder).allowed_networks == (ip_network("10.0.0.0/8"),)
    assert policy(folder, "127.0.0.0/8").allowed_networks == (ip_network("127.0.0.0/8"),)
    assert policy(folder, "").allowed_networks == ()
    monkeypatch.setenv("BROKER_ALLOW_NETWORKS", "192.168.0.0/16")
    assert policy(folder).allowed_networks == (ip_network("192.168.0.0/16"),)
    monkeypatch.delenv("BROKER_ALLOW_NETWORKS")
    folder.retract()
    assert folder.allow_networks() == ""


def test_no_command_makes_up_a_key_that_the_brokers_do_not_have(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingInvalid, match="the one that the brokers of this market have"):
        folder.secret_key()
    assert not list(folder.path.iterdir())
    made = folder.make_secret_key()
    assert folder.secret_key() == folder.make_secret_key() == made
    monkeypatch.setenv("BROKER_SECRET_KEY", "ab" * 32)
    assert folder.secret_key() == "ab" * 32


def test_a_worker_has_where_to_keep_its_schedule_though_the_folder_is_new(tmp_path: Path) -> None:
    words = quick_command(StateFolder(tmp_path / "new"), beat=True)
    with shelve.open(
        words[words.index("--schedule") + 1], writeback=True
    ) as schedule:  # as beat does
        schedule["entries"] = {}
    assert list((tmp_path / "new").iterdir())
