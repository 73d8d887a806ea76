"""Scripts of failure: what each endpoint does, call by call, for a server and for a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from broker.core.outcome import Fault
from provider_sdk.testing.script import Script

FIRST_BYTE_S = 1.5
"""How long the live broker waits for a provider that stalls."""
PACE = 200.0
"""Tokens per second, so that content has come on its own before what breaks off after it."""


@dataclass(frozen=True)
class Behaviour:
    """One work call: as a scripted provider does it, and what it comes to."""

    script: Script
    fault: Fault | None
    retry_after_s: float | None = None
    delivers: bool = False
    """Of a stream: some content comes before the fault."""


WHOLE: dict[str, Behaviour] = {
    "answers": Behaviour(Script(), None),
    "overloaded": Behaviour(Script(status=429), Fault.OVERLOADED),
    "asks to wait": Behaviour(Script(status=429, retry_after_s=1), Fault.OVERLOADED, 1.0),
    "unavailable": Behaviour(Script(status=503), Fault.OVERLOADED),
    "fails": Behaviour(Script(status=500), Fault.SERVER_ERROR),
    "times out": Behaviour(Script(status=408), Fault.SERVER_ERROR),
    "breaks off": Behaviour(Script(cut_after_chunks=0), Fault.RESET),
    "talks nonsense": Behaviour(Script(malformed_json=True), Fault.MALFORMED),
    "says nothing": Behaviour(Script(empty=True), Fault.MALFORMED),
    "locked out": Behaviour(Script(status=401), Fault.CREDENTIAL),
    "forgot the model": Behaviour(Script(status=404), Fault.NOT_FOUND),
    "refuses": Behaviour(Script(status=400), Fault.CALLER_FAULT),
    "refuses the size": Behaviour(Script(status=413), Fault.CALLER_FAULT),
    "is not there": Behaviour(Script(refuse=True), Fault.CONNECT_FAILED),
    "stalls past the deadline": Behaviour(Script(stall=True), Fault.DEADLINE),
    "stalls": Behaviour(Script(stall=True), Fault.FIRST_BYTE_TIMEOUT),
}
STREAMED: dict[str, Behaviour] = {
    **{name: WHOLE[name] for name in ("answers", "overloaded", "fails", "locked out", "refuses")},
    "breaks off": Behaviour(Script(cut_after_chunks=0), Fault.RESET),
    "talks nonsense": Behaviour(Script(malformed_sse=True), Fault.MALFORMED),
    "streams nothing": Behaviour(Script(wrong_content_type=True), Fault.MALFORMED),
    "breaks off late": Behaviour(
        Script(cut_after_chunks=4, tokens_per_s=PACE), Fault.RESET, delivers=True
    ),
    "fails late": Behaviour(
        Script(error_after_chunks=4, tokens_per_s=PACE), Fault.SERVER_ERROR, delivers=True
    ),
}


@dataclass(frozen=True)
class Failures:
    """A whole story: for each endpoint a behaviour for each of its work calls, then it answers."""

    streams: bool
    calls: int
    acts: tuple[tuple[str, ...], ...]

    def behaviours(self, number: int) -> Sequence[Behaviour]:
        """What an endpoint does, in turn."""
        table = STREAMED if self.streams else WHOLE
        return [table[name] for name in self.acts[number]]


def drawn(seed: int, *, streams: bool, endpoints: int, calls: int) -> Failures:
    """A story by chance, without what takes long; about half of the work calls succeed."""
    random = Random(seed)
    names = [
        name
        for name in (STREAMED if streams else WHOLE)
        if name not in ("answers", "asks to wait", "is not there") and not name.startswith("stalls")
    ]
    acts = tuple(
        tuple(
            "answers" if random.random() < 0.5 else random.choice(names) for _ in range(4 * calls)
        )
        for _ in range(endpoints)
    )
    return Failures(streams, calls, acts)
