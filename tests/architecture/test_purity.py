"""The pure rooms have no clock, no chance and no environment; importing a module does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT, Source, shipped, sources
from tests.architecture.test_sizes_and_names import none

PURE = ("pricing", "broker/core")
BANNED_MODULES = frozenset({"time", "asyncio", "os", "secrets", "socket", "random", "uuid"})
BANNED_CALLS = frozenset(
    {
        *("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "uuid4", "uuid7"),
        *("monotonic", "perf_counter", "Random", "open", "print", "input"),
    }
)
"""`Random` is handed in: a pure room does not make its own chance."""
MAY_READ_ENVIRONMENT = (
    *("broker/settings.py", "broker/cli/", "broker/demo/", "broker/embedded/"),
    "provider_sdk/cli.py",
)
ELSEWHERE = ("broker/demo/servers/",)
"""Runs in environments of its own, whose packages are not here."""
DECLARATIONS = frozenset({"add_typer", "command", "callback"})
"""What a command line says of itself."""


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of a name or attribute, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return ""


def calls(nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func)


def test_the_pure_rooms_have_no_clock_no_chance_and_no_environment() -> None:
    none(
        f"{source.path}:{line} calls {name}"
        for source in shipped()
        if source.path.startswith(PURE)
        for line, name in calls(ast.walk(source.tree))
        if name in BANNED_CALLS
        or (name.split(".")[0] in BANNED_MODULES and name.split(".")[0] in imported(source))
        or name.startswith(("np.random.", "numpy.random."))
    )


def imported(source: Source) -> set[str]:
    """Names of modules; a parameter of the same name is no module."""
    return {
        (each.asname or each.name).split(".")[0]
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import)
        for each in node.names
    }


def test_the_environment_is_read_in_one_place() -> None:
    none(
        f"{source.path}:{node.lineno} reads the environment"
        for source in shipped()
        if not source.path.startswith(MAY_READ_ENVIRONMENT)
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _takes_environment(node))
    )


def _takes_environment(node: ast.ImportFrom) -> bool:
    return any(each.name in ("environ", "getenv") for each in node.names)


def test_no_statement_of_a_module_is_a_call() -> None:
    """A module defines; what must be done is done by whoever calls it."""
    none(
        f"{source.path}:{statement.lineno} does something at import"
        for source in shipped()
        for statement in source.tree.body
        if not _only_as_main(statement) and _does_something(statement)
    )


def _does_something(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        if isinstance(statement.value, ast.Call):
            function = statement.value.func
            while isinstance(function, ast.Call):
                function = function.func
            return not isinstance(function, ast.Attribute) or function.attr not in DECLARATIONS
        return not isinstance(statement.value, ast.Constant)  # a docstring
    return isinstance(statement, ast.For | ast.While | ast.With | ast.AsyncFor | ast.AsyncWith)


def _only_as_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)


def test_importing_every_module_touches_no_file_socket_or_process() -> None:
    names = [
        each.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for each in shipped()
        if not each.path.endswith("__main__.py") and not each.path.startswith(ELSEWHERE)
    ]
    none(deeds(ROOT, names))


@pytest.mark.parametrize(
    ("deed", "event"),
    [
        ("open(__file__).close()", "open"),
        ("import socket\nsocket.socket().close()", "socket.__new__"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("import os\nos.environ['A_B'] = ''", "os.putenv"),
    ],
)
def test_a_module_that_does_something_would_be_seen(tmp_path: Path, deed: str, event: str) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "__init__.py").write_text("")
    (tmp_path / "broker" / "busy.py").write_text(deed)
    told = deeds(tmp_path, ["broker.busy"])
    assert told
    assert all(each.startswith("broker/busy.py:") for each in told)
    assert any(f"does {event}" in each for each in told)


def deeds(root: Path, names: list[str]) -> list[str]:
    """Import modules in a process of their own; return what they did."""
    watched = subprocess.run(
        [sys.executable, str(ROOT / "tests/architecture/watch_imports.py"), str(root), *names],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert watched.returncode == 0, watched.stderr
    return watched.stdout.splitlines()


def test_no_module_outside_the_tests_imports_them() -> None:
    none(
        f"{source.path}:{node.lineno} imports {node.module}"
        for source in sources()
        if not source.path.startswith("tests/")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests"
    )
