"""One serving process with nothing in it that only the command line or other users of its libraries
need: 30 MB of 150, and a quarter of the time that it takes to start.

    python -m broker.cli.lean HOST PORT [WORKER]
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from broker.cli.wordless import importing_without_words

OPTIONAL: Final = ("click", "opentelemetry", "pygments", "rich")
"""What libraries use where it is there, for tracebacks in colour and figures of their own; 6 MB."""
OWN: Final = ("broker", "pricing", "provider_sdk", "simulations", "web")
"""What these say of themselves is told: in the documents of the API, and by commands."""
READ: Final = ("numpy",)
"""What this says is read by the rest of it, which comes later: without, scipy is not imported."""
LATER: Final = (
    *("httpx", "broker.upstream.checked_httpx", "yaml"),
    "sqlalchemy.dialects.postgresql.pg_catalog",
)
"""What is imported whole, and loaded where something of it is first used, if ever: what probes and
webhooks are sent with, the YAML of the API's description, PostgreSQL's tables of tables; 4 MB."""
UNCALLED: Final = (
    *("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session", "pdb"),
    *("redis.cluster", "redis.asyncio.cluster"),
    *("redis.keyspace_notifications", "redis.asyncio.keyspace_notifications"),
    *("sqlalchemy.dialects.postgresql.pg8000", "sqlalchemy.dialects.postgresql.psycopg"),
    *("sqlalchemy.dialects.postgresql.psycopg2", "sqlalchemy.dialects.postgresql.psycopg2cffi"),
    *("http.server", "socketserver", "urllib.request", "wsgiref.simple_server", "sysconfig"),
)
"""What comes with other things and of which nothing is used here: with the engine the ORM and other
drivers, with Litestar a debugger, with the client of one Valkey that of many, with the figures for
Prometheus a server of their own, with one question how Python was built all that can be told of it;
10 MB. Nothing may be loaded meanwhile that takes such an answer for good, as `zoneinfo` does of
where time zones lie."""


class Nothing:
    """Can be made of anything, is false, and can be inherited from."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __bool__(self) -> bool:
        return False


class Uncalled(ModuleType):
    """Stands for a module of which names are imported, or inherited from, and none is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (Nothing,), {})


_one_at_a_time: Final = threading.RLock()
"""Loads later than the start, whichever threads they are met in; one may begin another."""


class Later(ModuleType):
    """Stands for a module until something of it is used; every name is looked up there once."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _one_at_a_time:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
            with _importing_beside(dict.fromkeys(OPTIONAL)):
                found = getattr(import_module(self.__name__), name)
        setattr(self, name, found)
        return found


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Import in the block without OPTIONAL, LATER and UNCALLED, as far as they are not there
    already, and without the docstrings of libraries.

    All can be imported afterwards: traces, if they are asked for, need some of the first. Nobody
    looks for garbage meanwhile or in what was imported, which stays: a sixth of the start went
    into looking, again and again.
    """
    hidden: dict[str, ModuleType | None] = dict.fromkeys(OPTIONAL)
    hidden |= {name: Uncalled(name) for name in UNCALLED} | {name: Later(name) for name in LATER}
    gc.disable()
    try:
        with _importing_beside(hidden):
            yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _importing_beside(hidden: Mapping[str, ModuleType | None]) -> Iterator[None]:
    """Import in the block with these in place of the modules of their names, which are not there
    yet, and without docstrings of libraries; None there means: it cannot be imported."""
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # it is typed without None
    try:
        with importing_without_words((*OWN, *READ)):
            yield
    finally:
        for name, module in hidden.items():
            if sys.modules.get(name) is module:
                sys.modules.pop(name, None)


def load() -> Callable[..., None]:
    """Import what serves, and no more; return `broker.app.run`."""
    with sparing():
        from broker.app import run
    return run


def command(host: str, port: int, worker_of: str = "") -> list[str]:
    """Return the command line of one process; `worker_of` is told to each of several.

    As the command itself it imports nothing from the folder where it is started.
    """
    told = [worker_of] if worker_of else []
    return [sys.executable, "-P", "-m", "broker.cli.lean", host, str(port), *told]


def main() -> None:
    """Serve; expected errors are one line on standard error and exit status 1."""
    spin_not()
    host, port, *worker_of = sys.argv[1:]
    run = load()
    from broker.app import Worker
    from broker.errors import BrokerError
    from broker.settings import Settings

    try:
        run(
            Settings.from_env(), host, int(port), Worker.enlisted(*worker_of) if worker_of else None
        )
    except (BrokerError, OSError) as error:
        detail = error.detail if isinstance(error, BrokerError) else error
        sys.stderr.write(f"broker: {detail}\n")
        sys.exit(1)


def spin_not() -> None:
    """Tell numpy, which comes later, to compute in one thread.

    Threads that compute together wait for each other spinning: on cores that other processes use
    too, a small matrix then takes ten times as long.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


if __name__ == "__main__":
    main()
