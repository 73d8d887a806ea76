"""What `broker webhooks` refuses before it asks a database."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from broker.cli.webhooks import app

AN_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.mark.parametrize("options", [(), ("--event", AN_ID, "--from", "2026-01-31")])
def test_either_one_event_or_all_from_a_time_on_are_sent_once_more(
    options: tuple[str, ...],
) -> None:
    words = ["replay", "acme", AN_ID, *options]
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert ended.exit_code == 2, ended.output
    assert "either --event or --from is needed, and not both" in ended.output
