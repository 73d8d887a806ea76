"""One Celery worker with nothing in it that it does not need, which starts in half the time.

    python -m broker.cli.lean_worker OPTIONS

The options are those of `celery worker`, and `--quiet`, which spares its banner.
"""

from __future__ import annotations

import sys
import sysconfig  # noqa: F401 - what Celery loads asks it where time zones lie
from typing import Final

import click  # noqa: F401 - Celery's command line is made of it: here it is not to be spared

from broker.cli.lean import sparing, spin_not

QUIET: Final = "--quiet"


def main() -> None:
    """Run the worker; ends the process. Expected errors are one line on standard error."""
    spin_not()
    with sparing():
        import celery.bin.worker  # noqa: F401 - what `work` will need

        from broker.worker import main as work
    from broker.errors import BrokerError

    try:
        work([each for each in sys.argv[1:] if each != QUIET], quiet=QUIET in sys.argv)
    except BrokerError as error:
        sys.exit(f"broker: {error.detail}")


if __name__ == "__main__":
    main()
