"""Becomes NVIDIA's tritonserver over the demo's trained models; a script for `triton`.

`triton.py check`, under any interpreter, says in one line why Triton cannot run there, and ends
with 1 if so. The binary, its libraries and a Python backend for each interpreter come out of the
wheel `nvidia-pytriton`; no GPU is needed, and what it says of missing ones means nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

INTERPRETERS = ((3, 11), (3, 12))
"""The wheel has backends for 3.8 to 3.13; NumPy 1.26, which it needs, has wheels up to 3.12."""
GLIBC = (2, 35)
_EXIT_LIMIT_S = 5


def obstacle() -> str | None:
    """Why Triton cannot run on this machine under this interpreter; None when it can."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"Triton's wheel is for Linux on x86-64, this is {sys.platform} {platform.machine()}"
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        return f"Triton needs glibc 2.35 or newer, this is {libc or 'another libc'} {version}"
    if sys.version_info[:2] not in INTERPRETERS:
        return f"Triton's models need Python 3.11 or 3.12, this is {platform.python_version()}"
    if python_library() is None:
        return f"Triton's Python backend needs {_library_name()}, which {sys.executable} lacks"
    return None


def python_library() -> Path | None:
    """The folder of this interpreter's shared library; None when it was built without one.

    The loader is not asked: it may know another Python of the same version, and with that one's
    library and our standard library the backend dies.
    """
    folders = [sysconfig.get_config_var("LIBDIR") or "", f"{sys.base_prefix}/lib"]
    folders += [f"{folder}/{sysconfig.get_config_var('MULTIARCH')}" for folder in folders]
    for folder in map(Path, folders):
        if (folder / _library_name()).exists():
            return folder
    return None


def _library_name() -> str:
    return f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"


def site_packages() -> Path:
    """Where the wheels of this environment lie."""
    return Path(sysconfig.get_path("platlib"))


def backend_folder() -> Path:
    """The Python backend with the stub for this interpreter, laid out as Triton wants it."""
    bundle = site_packages() / "pytriton" / "tritonserver"
    stubs = bundle / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    target = Path(sys.prefix) / "backends" / "python"
    target.mkdir(parents=True, exist_ok=True)
    parts = [*(bundle / "backends" / "python").iterdir(), stubs / "triton_python_backend_stub"]
    for part in filter(Path.is_file, parts):  # pip leaves a __pycache__ there
        if not (target / part.name).exists():
            # Copied aside and renamed: another starter may look at the same moment.
            fresh = target / f".{part.name}.{os.getpid()}"
            shutil.copy2(part, fresh)
            fresh.rename(target / part.name)
    return target.parent


def model_repository() -> Path:
    """The trained models, made at the first start and after each change of their source."""
    here = Path(__file__).parent
    sources = [here / "triton_training.py", here / "triton_model.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    repository = Path(sys.prefix) / f"models-{digest}"
    if not repository.exists():
        one_core = {**os.environ, "OMP_NUM_THREADS": "1"}
        argv = [sys.executable, "-I", str(sources[0]), str(repository)]
        subprocess.run(argv, env=one_core, check=True)  # noqa: S603 - a script of our own
    return repository


def command(http_port: int, grpc_port: int, metrics_port: int) -> list[str]:
    """The command line of tritonserver; its listeners default to all addresses, so each is told."""
    ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
    listeners = [
        option
        for name, port in ports.items()
        for option in (f"--{name}-address=127.0.0.1", f"--{name}-port={port}")
    ]
    return [
        str(site_packages() / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        # Seen from `sys.prefix`: the Python backend starts its stubs by a shell, paths unquoted.
        f"--model-repository={os.path.relpath(model_repository(), sys.prefix)}",
        f"--backend-directory={os.path.relpath(backend_folder(), sys.prefix)}",
        f"--backend-config=python,shm-region-prefix-name=model_broker_{os.getpid()}_",
        *listeners,
        "--metrics-interval-ms=500",
        "--metrics-config=summary_latencies=true",
        "--allow-gpu-metrics=false",
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--exit-timeout-secs={_EXIT_LIMIT_S}",
    ]


def environment() -> dict[str, str]:
    """What the server and its Python backends find their libraries and packages by."""
    libraries = [python_library(), site_packages() / "nvidia_pytriton.libs"]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PYTHONPATH": str(site_packages()),
        "PATH": f"{sys.prefix}/bin:{os.environ.get('PATH', os.defpath)}",
        "OMP_NUM_THREADS": "1",
    }


def main() -> None:
    """Check, or become the server: its process id is ours, and SIGTERM goes straight to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check")
    serve = actions.add_parser("serve")
    for name in ("http", "grpc", "metrics"):
        serve.add_argument(f"--{name}-port", type=int, required=True)
    options = parser.parse_args()
    if reason := obstacle():
        sys.exit(reason)
    if options.action == "serve":
        argv = command(options.http_port, options.grpc_port, options.metrics_port)
        os.chdir(sys.prefix)
        os.execve(argv[0], argv, environment())  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
