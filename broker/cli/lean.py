"""One serving process with nothing in it that only the command line or other users of its libraries
need: 30 MB of 150, and a quarter of the time that it takes to start.

    python -m broker.cli.lean HOST PORT [WORKER]
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from broker.cli.wordless import importing_without_words

OPTIONAL: Final = ("click", "opentelemetry", "pygments", "rich")
"""What libraries use where it is there, for tracebacks in colour and figures of their own; 6 MB."""
OWN: Final = ("broker", "pricing", "provider_sdk", "simulations", "web")
"""What these say of themselves is told: in the documents of the API, and by commands."""
READ: Final = ("numpy",)
"""What this says is read by the rest of it, which comes later: without, scipy is not imported."""
UNCALLED: Final = (
    *("sqlalchemy.ext.asyncio.scoping", "sqlalchemy.ext.asyncio.session", "pdb"),
    *("redis.cluster", "redis.asyncio.cluster"),
    *("redis.keyspace_notifications", "redis.asyncio.keyspace_notifications"),
)
"""What comes with other things and of which nothing is used here: with the engine the ORM, with
Litestar a debugger, with the client of one Valkey that of many; 7 MB."""


class Uncalled(ModuleType):
    """Stands for a module of which names are imported and none is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@contextlib.contextmanager
def sparing() -> Iterator[None]:
    """Import in the block without OPTIONAL and UNCALLED, as far as they are not there already, and
    without the docstrings of libraries.

    All can be imported afterwards: traces, if they are asked for, need some of the first. Nobody
    looks for garbage meanwhile or in what was imported, which stays: a sixth of the start went
    into looking, again and again.
    """
    hidden: dict[str, ModuleType | None] = dict.fromkeys(OPTIONAL)
    hidden |= {name: Uncalled(name) for name in UNCALLED}
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None there means: it cannot be imported
    gc.disable()
    try:
        with importing_without_words((*OWN, *READ)):
            yield
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
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
