"""Readers of load off the inference servers that people run."""

from __future__ import annotations

from provider_sdk.backends.llamacpp import LLAMACPP
from provider_sdk.backends.prometheus import Scrape
from provider_sdk.backends.sglang import SGLANG
from provider_sdk.backends.signals import Signals
from provider_sdk.backends.tgi import TGI
from provider_sdk.backends.triton import TRITON, TRTLLM
from provider_sdk.backends.vllm import VLLM

NONE = Signals(backend="none", mark="\0")
"""A server without readable metrics: only its health is known."""

BACKENDS = {
    signals.backend: signals for signals in (VLLM, SGLANG, TGI, LLAMACPP, TRITON, TRTLLM, NONE)
}


def detect(scrape: Scrape) -> Signals:
    """The server that wrote these metrics; `NONE` when it is no server that we know."""
    return next((known for known in BACKENDS.values() if known.shown_in(scrape)), NONE)
