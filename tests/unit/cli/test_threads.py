"""A process of the `broker` command computes with one thread, unless it is told otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from broker.cli.main import main
assert "numpy" not in sys.modules, "it reads the setting when it is imported"
try:
    main()
finally:
    print(os.environ["OPENBLAS_NUM_THREADS"])
"""


@pytest.mark.parametrize(("told", "threads"), [(None, "1"), ("4", "4")])
def test_one_thread_computes_unless_told_otherwise(told: str | None, threads: str) -> None:
    unset = {name: text for name, text in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--version"],
        env=unset | ({} if told is None else {"OPENBLAS_NUM_THREADS": told}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split()[-1] == threads
