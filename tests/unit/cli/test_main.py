"""What every command has in common: its help, and how it tells what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.cli.main import app, main


def test_the_paragraphs_of_a_commands_help_are_broken_where_the_window_ends() -> None:
    told = CliRunner().invoke(app, ["demo", "--help"], env={"COLUMNS": "80"}).output
    paragraph = [line for line in told.splitlines() if "Their servers are" in line]
    assert [each.strip() for each in paragraph] == [
        "The providers are real models on this machine's CPU. Their servers are"
    ]
    follows = told.splitlines()[told.splitlines().index(paragraph[0]) + 1]
    assert len(follows.split()) > 5, "no line of a docstring ends within a line of the window"


def test_a_file_that_is_not_there_is_named_without_pythons_number_of_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["broker", "replay-routing", str(tmp_path / "none.jsonl")])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"broker: {tmp_path}/none.jsonl: No such file or directory\n"
