"""Other gateways to measure beside the broker, where they are installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from broker.embedded.port import free_port

PORTKEY: Final = "PORTKEY"
"""Names Portkey's `start-server.js`, of the npm package @portkey-ai/gateway."""
LITELLM: Final = "LITELLM"
"""Names the command `litellm`, of the package litellm[proxy]."""
_MASTER_KEY: Final = "sk-benchmark"


def peers(upstream: int, folder: Path) -> list[dict[str, Any]]:
    """Return those that the environment names, before the provider at the port `upstream`."""
    found = []
    if PORTKEY in os.environ:
        found.append(_portkey(os.environ[PORTKEY], upstream))
    if LITELLM in os.environ:
        found.append(_litellm(os.environ[LITELLM], upstream, folder))
    return found


def _portkey(script: str, upstream: int) -> dict[str, Any]:
    port = free_port()
    return {
        "name": "portkey",
        "start": ["node", script, "--headless", f"--port={port}"],
        "env": {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1"},
        "port": port,
        "headers": {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        },
    }


def _litellm(command: str, upstream: int, folder: Path) -> dict[str, Any]:
    port, base = free_port(), f"http://127.0.0.1:{upstream}/v1"
    model = {"model": "openai/m", "api_base": base, "api_key": "none"}
    # JSON is YAML.
    config = {
        "model_list": [{"model_name": "m", "litellm_params": model}],
        "general_settings": {"master_key": _MASTER_KEY},
    }
    (folder / "litellm.yaml").write_text(json.dumps(config))
    return {
        "name": "litellm",
        "start": [command, "--config", str(folder / "litellm.yaml"), "--port", str(port)],
        "env": {"LITELLM_MODE": "PRODUCTION"},
        "port": port,
        "ready": "/health/liveliness",
        "settle_s": 3,
        "headers": {"Authorization": f"Bearer {_MASTER_KEY}"},
    }
