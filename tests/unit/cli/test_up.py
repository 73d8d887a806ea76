"""What `broker up` says to type next, and of what keeps it from coming up."""

from __future__ import annotations

import io
import os
import signal
from asyncio import sleep
from pathlib import Path

import pytest
from rich.console import Console

from broker.cli.demo_market import run
from broker.cli.launch import Launch, occupy, open_market, workers
from broker.cli.state import StateFolder
from broker.cli.up import next_steps
from broker.demo.start import prepare_servers
from broker.embedded.supervise import Supervisor
from broker.errors import SettingInvalid, Unavailable
from broker.jobs.room import QUICK, SLOW


def test_the_next_steps_name_the_state_folder_where_it_is_not_the_usual_one() -> None:
    assert next_steps(Path(".broker"))[0].endswith(" accounts open acme")
    elsewhere = next_steps(Path("/srv/my market"))
    assert len(elsewhere) == 3
    assert all(each.endswith(" --state '/srv/my market'") for each in elsewhere)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of a broker."""
    for name in ("DATABASE_URL", "VALKEY_URL", "BROKER_PUBLIC_URL", "BROKER_TAKE_BPS"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BROKER_TAKE_BPS", "ten", "BROKER_TAKE_BPS must be a whole number"),
        ("BROKER_PUBLIC_URL", "broker.example", "BROKER_PUBLIC_URL: .* does not begin with http"),
    ],
)
async def test_a_wrong_setting_is_told_before_a_server_is_started(
    alone: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, said: str
) -> None:
    alone.setenv(name, value)
    async with Supervisor() as up:
        with pytest.raises(SettingInvalid, match=said):
            await open_market(Launch(StateFolder(tmp_path), "127.0.0.1", 1), up, Console())
    assert not (tmp_path / "postgres").exists()


async def test_a_database_that_does_not_answer_is_told_as_that(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setenv("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/broker")
    alone.setenv("VALKEY_URL", "redis://127.0.0.1:1/0")
    async with Supervisor() as up:
        with pytest.raises(Unavailable, match="The database cannot be reached"):
            await open_market(Launch(StateFolder(tmp_path), "127.0.0.1", 1), up, Console())


def test_every_market_has_somebody_for_each_queue_of_jobs(tmp_path: Path) -> None:
    lines = [each.command.argv for each in workers(StateFolder(tmp_path), {})]
    queues = [line[line.index("--queues") + 1] for line in lines]
    assert queues == [QUICK, SLOW, "simulations"]


async def test_that_it_stops_is_said_at_once_where_a_signal_asked_for_it(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for signalled in (True, False):
        out = io.StringIO()
        async with occupy(Launch(StateFolder(tmp_path), "127.0.0.1", 0), Console(file=out)):
            if signalled:
                os.kill(os.getpid(), signal.SIGINT)
                await sleep(60)
        assert ("Stopping ..." in out.getvalue()) == signalled


@pytest.mark.timeout(60)
async def test_a_demo_that_does_not_come_up_fails_with_what_it_was_that_failed(
    alone: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.setenv("DATABASE_URL", "mysql://somewhere")
    wanted = Launch(StateFolder(tmp_path), "127.0.0.1", 0)
    with pytest.raises(SettingInvalid, match="DATABASE_URL"):
        await run(wanted, Console(file=io.StringIO()), tmp_path / "environments")


async def test_an_environment_that_is_not_made_is_told_by_itself(tmp_path: Path) -> None:
    closed = tmp_path / "a file"
    closed.touch()
    with pytest.raises(NotADirectoryError):
        await prepare_servers(tmp_path, str, environments=closed)
