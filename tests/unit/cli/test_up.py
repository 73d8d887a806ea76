"""What `broker up` says to type next."""

from __future__ import annotations

from pathlib import Path

from broker.cli.state import StateFolder
from broker.cli.up import next_steps


def test_the_next_steps_name_the_state_folder_where_it_is_not_the_usual_one() -> None:
    assert next_steps("broker", StateFolder(Path(".broker")))[0] == "broker accounts open acme"
    elsewhere = next_steps("broker", StateFolder(Path("/srv/my market")))
    assert len(elsewhere) == 3
    assert all(each.endswith(" --state '/srv/my market'") for each in elsewhere)
