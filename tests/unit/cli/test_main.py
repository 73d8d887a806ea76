"""What every command has in common: its help, and how it tells what went wrong."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from broker.cli.main import app, main
from broker.cli.options import in_utc
from broker.errors import SettingInvalid
from broker.live.room import Live

REFERENCE = Path(__file__).parents[3] / "broker" / "README.md"


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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("here", "DATABASE_URL must begin with postgresql://."),
        ("postgresql://me:secret@here:port/x", "is not written postgresql://user:password@"),
    ],
)
def test_a_url_that_is_none_is_told_in_a_line_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, said: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setattr(sys, "argv", ["broker", "migrate"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert (told.count("\n"), said in told, "secret" in told) == (1, True, False)


def test_a_url_of_valkey_that_is_none_names_its_setting() -> None:
    with pytest.raises(SettingInvalid, match="VALKEY_URL: Redis URL must specify one of"):
        Live.connect("here")


def test_a_database_that_cannot_be_reached_is_told_as_such_by_migrate_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
    monkeypatch.setattr(sys, "argv", ["broker", "migrate"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.startswith("broker: The database cannot be reached: ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("topup", "acme", "5"), "Did you mean 'accounts topup'?"),
        (("rotate", "abc"), "Did you mean 'keys rotate'?"),
        (("end",), "Did you mean 'plans end' or 'pricing end'?"),
        (("account", "list"), "Did you mean 'accounts'?"),
    ],
)
def test_who_leaves_out_the_group_of_a_command_or_misspells_one_is_told_which_was_meant(
    words: tuple[str, ...], meant: str
) -> None:
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert (ended.exit_code, meant in ended.output) == (2, True), ended.output


def test_what_is_no_command_of_any_group_is_said_to_be_none() -> None:
    ended = CliRunner().invoke(app, ["qwertz"])
    assert (ended.exit_code, "Did you mean" in ended.output) == (2, False)
    assert "No such command 'qwertz'." in ended.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deployments", "withdraw", "xx", "--reason", "r"), "'xx' is no id: copy one whole"),
        (("payouts", "confirm", "01", "--reference", "r"), "'01' is no id: copy one whole"),
        (("pricing", "set", "pi", "--from", "noon"), "'noon' is no time: one is written 2026-01"),
        (("accounts", "open", "a", "--role", "x"), "'--role': 'x' is not one of 'consumer'"),
        (("up", "--port", "x"), "'x' is no whole number."),
        (("up", "--port", "0"), "0 is below 1, the least."),
        (("up", "--port", "99999"), "99999 is above 65535, the most."),
    ],
)
def test_what_is_wrong_with_a_word_of_a_command_is_told_in_plain_words(
    words: tuple[str, ...], said: str
) -> None:
    ended = CliRunner().invoke(app, words, env={"COLUMNS": "120"})
    assert (ended.exit_code, said in ended.output) == (2, True)
    assert "Input should" not in ended.output


def test_a_time_of_another_zone_is_that_moment_and_one_without_is_in_utc() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert in_utc(datetime(2026, 1, 31, 12)) == noon  # noqa: DTZ001 - as it is typed
    assert in_utc(datetime.fromisoformat("2026-01-31T14:00:00+02:00")) == noon
    assert in_utc(None) is None


def test_the_reference_lists_every_command_with_its_sub_commands() -> None:
    cells = re.findall(r"^\| (`[a-z].*?) \| (.*) \|$", REFERENCE.read_text(), re.MULTILINE)
    told = {name: words for names, words in cells for name in re.findall(r"`([a-z-]+)`", names)}
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    shown = {name: each for name, each in group.commands.items() if not each.hidden}
    assert shown.keys() <= told.keys()
    for name, each in shown.items():
        if isinstance(each, TyperGroup):
            assert [*each.commands] == re.findall(r"`([a-z-]+)`", told[name]), name
