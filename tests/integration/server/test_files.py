"""How many files a process may open."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from broker.server.files import allow_files

TELLS_ITS_FILES = """
import resource
from broker.app import run
from broker.errors import Unavailable
from broker.settings import Settings
try:
    run(Settings("postgresql://127.0.0.1:1/none", "redis://127.0.0.1:1", "ab" * 32), "127.0.0.1", 0)
except Unavailable:
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def test_a_process_opens_as_many_files_as_its_system_lets_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        allow_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("files", "most", "set_to"), [(256, 100_000, 81_920), (256, 10_240, 10_240), (256, 200, 256)]
)
def test_where_no_limit_is_named_and_none_is_refused_as_many_as_are_taken_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int, set_to: int
) -> None:
    now = [files]

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        if not 0 <= limits[0] <= most or limits[1] != resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")
        now[0] = limits[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: (now[0], resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    allow_files()
    assert now == [set_to]


def test_a_broker_opens_as_many_files_as_it_may_before_it_serves() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1] - 1, before[1]))
        told = subprocess.run(  # of its own, for it sets the logs of its whole process up
            [sys.executable, "-c", TELLS_ITS_FILES], capture_output=True, text=True, check=True
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert told.stdout == f"{before[1]}\n"
