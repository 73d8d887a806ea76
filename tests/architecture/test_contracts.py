"""The rooms and who may enter them: the import contracts hold."""

from __future__ import annotations

import os

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests.architecture.sources import ROOT


def test_rooms_are_entered_as_the_contracts_allow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(os.fspath(ROOT))
    status = lint_imports(config_filename="pyproject.toml", no_cache=True, is_debug_mode=False)
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out
