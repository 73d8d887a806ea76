"""nginx before brokers, as the compose file has it configured."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

from broker.embedded.child import Child, Command
from broker.embedded.port import free_port
from tests.e2e.process import BrokerProcess
from tests.plain import TRUSTS_NOBODY
from tests.waiting import PATIENCE_S

NGINX = shutil.which("nginx")
_COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
_CONTENT = re.compile(r"^    content: \|\n((?:^(?: {6}.*)?\n)+)", re.MULTILINE)
_RESOLVES = (1, 27, 3)
"""The first version that looks upstreams up again."""
_WHOLE = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{served}
}}
"""


def configuration(port: int, brokers: Sequence[BrokerProcess]) -> str:
    """Return what the compose file tells nginx, with these addresses, and without looking them up
    again where it is too old for that."""
    [told] = _CONTENT.findall(_COMPOSE.read_text())
    text: str = told.replace("$$", "$").replace("listen 8000;", f"listen 127.0.0.1:{port};")
    for number, broker in enumerate(brokers, 1):
        name = f"broker-{number}:8000"
        assert name in text
        text = text.replace(name, broker.url.removeprefix("http://"))
    return text.replace(" resolve ", " ") if _version() < _RESOLVES else text


def _version() -> tuple[int, ...]:
    assert NGINX is not None
    told = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(each) for each in told.strip().partition("/")[2].split()[0].split("."))


@contextlib.asynccontextmanager
async def proxied(folder: Path, *brokers: BrokerProcess) -> AsyncIterator[str]:
    """Run nginx before brokers; yield its URL."""
    assert NGINX is not None
    port = free_port()
    told, log = folder / "nginx.conf", folder / "nginx.log"
    told.write_text(_WHOLE.format(folder=folder, served=configuration(port, brokers)))
    argv = [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(told)]
    child = await Child.start(Command("nginx", argv, log))
    try:
        async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await http.get(f"http://127.0.0.1:{port}/health")).is_success
                return False

            await child.ready(ready, limit_s=PATIENCE_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.stop(limit_s=5.0)
