"""What an inference of a 600 kB tensor costs through the broker, next to nginx in the same run.

nginx stands there three times: as it is installed, which writes a body of that size to a file;
with room for the body in memory, which is what the broker does, that another provider may be asked;
and passing on what comes as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.embedded.port import free_port
from tests.benchmarks.gateways import broker, provider
from tests.benchmarks.side_by_side import Gateway, Load, compare
from tests.benchmarks.stand import Stand, open_stand

IMAGE_BYTES: Final = 4 * 3 * 224 * 224
"""FP32, as image models take them."""
_SCRIPT: Final = """
local json = '{"id":"1","inputs":[{"name":"IN","shape":[1,3,224,224],"datatype":"FP32",' ..
  '"parameters":{"binary_data_size":%d}}],"outputs":[{"name":"OUT",' ..
  '"parameters":{"binary_data":true}}]}'
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.headers["Inference-Header-Content-Length"] = tostring(#json)
%s
wrk.body = json .. string.rep("\\0", %d)
"""
_NGINX: Final = """
daemon off; worker_processes 1; pid %(folder)s/pid; error_log /dev/null;
events { worker_connections 1024; }
http {
  access_log off; client_max_body_size 64m; keepalive_requests 1000000;
  client_body_temp_path %(folder)s/body; proxy_temp_path %(folder)s/proxy;
  fastcgi_temp_path %(folder)s/f; uwsgi_temp_path %(folder)s/u; scgi_temp_path %(folder)s/s;
  upstream provider { server 127.0.0.1:%(upstream)d; keepalive 128; keepalive_requests 1000000; }
  server {
    listen 127.0.0.1:%(port)d; %(buffering)s
    location / {
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
    }
  }
}
"""
_WAYS: Final = {
    "nginx": "client_body_buffer_size 1m;",
    "nginx-as-installed": "",
    "nginx-unbuffered": "proxy_request_buffering off;",
}
_NAMED: Final = "/v2/models/benchmark-provider/e0/infer"


async def measure(folder: Path, load: Load, endpoints: int) -> dict[str, object]:
    """Return the figures of the broker and of nginx in its three ways."""
    async with provider() as upstream:
        url = f"http://127.0.0.1:{upstream}"
        async with open_stand(folder, url, endpoints, "kserve") as stand:
            gateways = [*_nginxes(folder, upstream), _broker(stand)]
            before_s = stand.cpu_s()
            told = await compare(gateways, load, folder)
            stores_s = stand.cpu_s() - before_s
    own = told["broker"]
    return {
        "mode": "tensor",
        "body_bytes": IMAGE_BYTES,
        "endpoints": endpoints,
        "cpu_us": {name: each["cpu_us"] for name, each in told.items()},
        "ratio_to_nginx": own["ratio"],
        "ratio_to_nginx_as_installed": round(
            own["cpu_us"] / told["nginx-as-installed"]["cpu_us"], 3
        ),
        "ratio_to_nginx_unbuffered": round(own["cpu_us"] / told["nginx-unbuffered"]["cpu_us"], 3),
        "failed": {name: each["failed"] for name, each in told.items()},
        "rss_mb": own["rss_mb"],
        "stores_cpu_us": round(stores_s / max(own["calls"], 1) * 1e6, 1),
    }


def _broker(stand: Stand) -> Gateway:
    authorized = f'wrk.headers["Authorization"] = "Bearer {stand.key}"'
    return broker(stand, script=_SCRIPT % (IMAGE_BYTES, authorized, IMAGE_BYTES), path=_NAMED)


def _nginxes(folder: Path, upstream: int) -> Sequence[Gateway]:
    made = []
    for name, buffering in _WAYS.items():
        own, port = folder / name, free_port()
        own.mkdir()
        told = {"folder": own, "upstream": upstream, "port": port, "buffering": buffering}
        (own / "nginx.conf").write_text(_NGINX % told)
        start = ("nginx", "-p", str(own), "-c", str(own / "nginx.conf"))
        script = _SCRIPT % (IMAGE_BYTES, "", IMAGE_BYTES)
        made.append(Gateway(name=name, start=start, port=port, script=script, path=_NAMED))
    return made
