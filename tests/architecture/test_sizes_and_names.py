"""No monsters, no lumber rooms: sizes, names, docstrings, and hosts that no file may name."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

import pytest

from tests.architecture.sources import ROOT, Source, files, shipped, sources

FILE_LINES_MAX = 350
FUNCTION_LINES_MAX = 50
PARAMETERS_MAX = 6
COMMAND_LINES = frozenset({"provider_sdk/cli.py", "simulations/commands.py"})
"""Beside the room `broker.cli`."""
BANNED_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "misc"})
BANNED_ENDINGS = ("_new", "_v2", "_utils", "_helpers", "_old")
REGISTRY_HOSTS = (
    *("pypi", "pythonhosted", "anaconda"),
    *("npmjs", "yarnpkg", "crates"),
)
"""Package registries without their last label, so that this file names none itself."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: Source) -> Iterator[Function]:
    return (each for each in ast.walk(source.tree) if isinstance(each, Function))


def none(faults: Iterable[str]) -> None:
    """Fail with a line for each fault."""
    told = sorted(faults)
    assert not told, "\n" + "\n".join(told)


def test_no_file_is_longer_than_a_sitting() -> None:
    none(
        f"{each.path} has {each.text.count(chr(10))} lines"
        for each in sources()
        if each.path.split("/")[0] not in ("tests", "migrations")
        and each.text.count("\n") > FILE_LINES_MAX
    )


def test_no_function_is_longer_than_a_page() -> None:
    none(
        f"{source.path}:{each.lineno} {each.name} has {length} lines"
        for source in shipped()
        for each in functions(source)
        if (length := (each.end_lineno or each.lineno) - each.lineno + 1) > FUNCTION_LINES_MAX
    )


def test_no_function_wants_more_than_six_parameters() -> None:
    """A command line's functions are exempt: their parameters are its options."""
    none(
        f"{source.path}:{each.lineno} {each.name} wants {count} parameters"
        for source in shipped()
        if source.room != "broker.cli" and source.path not in COMMAND_LINES
        for each in functions(source)
        if (count := _parameters(each)) > PARAMETERS_MAX
    )


def _parameters(function: Function) -> int:
    asked = function.args
    names = [each.arg for each in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_no_file_is_named_for_what_did_not_fit_elsewhere() -> None:
    none(
        f"{name}: '{part}' says nothing"
        for name in files()
        if name.endswith(".py")
        for part in name.removesuffix(".py").split("/")
        if part in BANNED_NAMES or part.endswith(BANNED_ENDINGS)
    )


def test_every_module_says_its_job() -> None:
    """The `__init__` of a package may be empty."""
    none(
        f"{each.path} has no docstring"
        for each in shipped()
        if each.text.strip() and ast.get_docstring(each.tree) is None
    )


@pytest.mark.parametrize("host", REGISTRY_HOSTS)
def test_no_file_names_a_package_registry(host: str) -> None:
    named = [f"{host}.{ending}" for ending in ("org", "com", "io")]
    none(name for name in files() if _holds(name, named))


def _holds(name: str, words: list[str]) -> bool:
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return any(word in text for word in words)
