"""Which Python an environment is made with, as builds tell of themselves and not by their speed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_CHOICE = Path(__file__).parents[2] / ".ci" / "python"
_PLAIN, _TUNED = "--enable-shared", "--enable-shared --enable-optimizations"
_BUILD = """#!/bin/sh
exec {real} -c 'import sys, sysconfig
sys.version_info, sys.base_prefix = {version}, "{prefix}"
sysconfig.get_config_vars()["CONFIG_ARGS"] = "{told}"
sys.modules["ensurepip"] = {installer}
exec(sys.argv[1])' "$2" "$3"
"""
"""Runs what it is asked to, but says of itself what is wanted."""


def _build(
    python: Path, minor: int, told: str, prefix: str = "/opt/python", installer: str = "sys"
) -> str:
    facts = {"real": sys.executable, "version": (3, minor, 1), "prefix": prefix, "told": told}
    return _script(python, _BUILD.format(**facts, installer=installer))


def _script(place: Path, text: str) -> str:
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)
    place.chmod(0o755)
    return str(place)


def _chosen(*folders: Path) -> str:
    path = os.pathsep.join(map(str, folders))
    return subprocess.run(
        ["/bin/sh", str(_CHOICE)],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


@pytest.mark.parametrize("first", ["told", "of the distribution"])
def test_python3_is_taken_where_it_was_optimised(tmp_path: Path, first: str) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    usual = (
        _build(own / "python3", 12, _TUNED)
        if first == "told"
        else _build(own / "python3", 12, _PLAIN, "/usr")
    )
    _build(other / "python3.12", 12, _TUNED)
    assert _chosen(own, other) == usual


@pytest.mark.parametrize(("told", "prefix"), [(_TUNED, "/opt/python"), (_PLAIN, "/usr")])
def test_an_optimised_build_of_the_same_version_is_taken_before_a_plain_one(
    tmp_path: Path, told: str, prefix: str
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    _build(own / "python3", 12, _PLAIN)
    _build(own / "python3.12", 12, _PLAIN)
    _build(other / "python3.11", 11, told, prefix)
    _build(other / "python3.13", 13, told, prefix)
    better = _build(other / "python3.12", 12, told, prefix)
    assert _chosen(own, other) == better


def test_a_plain_python3_is_taken_where_no_other_of_its_version_is_better(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    usual = _build(own / "python3", 12, _PLAIN)
    _build(other / "python3.12", 12, _PLAIN)
    _build(other / "python3.13", 13, _TUNED)
    assert _chosen(own, other) == usual


def test_where_python3_is_too_old_or_broken_another_that_will_do_is_taken(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other folder"
    _build(own / "python3", 10, _TUNED)
    _script(own / "python3.11", "#!/bin/sh\nexit 127\n")
    newer = _build(other / "python3.13", 13, _PLAIN)
    assert _chosen(own, other) == newer


def test_where_python3_is_too_new_an_older_one_is_taken(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    _build(own / "python3", 15, _TUNED)
    _build(own / "python3.15", 15, _TUNED)
    known = _build(other / "python3.14", 14, _TUNED)
    assert _chosen(own, other) == known


def test_what_cannot_make_environments_is_left_unless_uv_makes_them(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    bare = _build(own / "python3", 12, _TUNED, installer="None")
    whole = _build(other / "python3.12", 12, _PLAIN)
    assert _chosen(own, other) == whole
    _script(other / "uv", "#!/bin/sh\n")
    assert _chosen(own, other) == bare


def test_where_none_will_do_python3_is_named_for_the_complaint(tmp_path: Path) -> None:
    _build(tmp_path / "own" / "python3", 10, _TUNED)
    assert _chosen(tmp_path / "own") == "python3"
    assert _chosen(tmp_path / "nothing") == "python3"
