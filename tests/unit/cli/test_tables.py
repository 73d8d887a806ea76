"""Tables are whole where they are read by programs, and cut nothing on a terminal."""

from __future__ import annotations

import pytest
from rich.table import Table

from broker.cli.tables import print_table

LONG = "01a20784-c6e0-76a9-b756-47c8d1cb38c3-" * 4


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table("id", "name", box=None)
    table.add_row(LONG, "google/gemini-2.5-flash")
    print_table(table)
    return capsys.readouterr().out


def test_into_a_pipe_a_row_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    _, row = printed(capsys).splitlines()
    assert row.split() == [LONG, "google/gemini-2.5-flash"]


def test_on_a_terminal_what_is_too_long_goes_on_in_the_next_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    told = printed(capsys)
    assert "…" not in told
    assert len(told.splitlines()) > 3


def test_of_a_table_without_rows_it_is_said_what_that_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(Table("id", "name", box=None), if_empty="There are none.")
    assert capsys.readouterr().out == "There are none.\n"
