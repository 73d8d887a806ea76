"""A market in which there is something of each kind, and the words by which it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import httpx
import msgspec

from broker.store.access.accounts import Role
from tests.integration.gateway.house import House, Stall

_TIMES: Final = ("2026-01-01T00:00:00Z", "2100-01-01T00:00:00+05:30", "0001-01-01T00:00:00Z")
_USD: Final = ("0.5", "1", "2.000000001", "1000000000")
_CHAT: Final = {
    "model": "auto",
    "messages": [{"role": "user", "content": "May a landlord raise the rent?"}],
    "max_tokens": 8,
}
_ROW: Final = '{"prompt": "1+1?", "reference": "2", "metric": "exact"}\n'
_OFTEN: Final = 0.7

Words = Mapping[str, Sequence[Any]]
SAID: Final[Words] = {
    **dict.fromkeys(("from", "to", "expires_at", "valid_from", "valid_to"), _TIMES),
    **dict.fromkeys(("amount_usd", "threshold_usd", "cost_usd", "day_usd", "total_usd"), _USD),
    **dict.fromkeys(("floor_in", "list_in", "ceiling_in"), ("0.5", "1")),
    **dict.fromkeys(("floor_out", "list_out", "ceiling_out"), ("0.5", "1")),
    **dict.fromkeys(("floor_call", "list_call", "ceiling_call"), ("0.001",)),
    "month": ("2026-01", "9999-12", "0001-01"),
    "endpoint": ("acme/small", "acme/none"),
    "model": ("auto", "small", "acme/small", "none"),
    "provider": ("acme", "none"),
    "domain": ("law", "none"),
    "label": ("team", "bot"),
    "labels": ({"team": "a"},),
    "reason": ("it was wrong",),
    "words": ("as was asked",),
    "currency": ("USD",),
    "controller": ("posted", "excess", "pi", "shadow", "revenue"),
    "parameters": ({}, {"gain": 0.1}),
    "scope": ("market", "domain", "provider", "endpoint"),
    "subject": ("", "law", "acme", "acme/small"),
    "kinds": (["*"], ["refund.*", "call.settled"]),
    "from_usd": ("0", "1000"),
    "request": (_CHAT, {**_CHAT, "model": "small", "broker": {"domain": "law"}}, {}),
    "broker": ({}, {"domain": "law"}, {"max_cost": "1"}),
    "task": ("chat", "embedding"),
    "models": (["small"], []),
    "providers": (["acme"], []),
    "tasks": (["chat"],),
    "by": ("key", "endpoint", "domain", "task_label", "day", "model", "label"),
    "destination": ({"method": "bank", "holder": "Ltd", "iban": "DE89370400440532013000"},),
}
_EXAMPLES: Final = [f"May a landlord raise the rent by {each} percent?" for each in range(20)]
_ESTIMATE: Final = {"task": "chat", "model": "auto", "tokens_in": 5, "tokens_out_max": 5}
_WHY: Final = {"reason": "it was wrong"}
_HOOK: Final = {"url": "http://127.0.0.1:9/hook", "kinds": ["*"]}
_YESTERDAY: Final = datetime.now(UTC) - timedelta(days=1)

FITTING: Final[Mapping[str, Mapping[str, Any]]] = {
    "/api/accounts": {"name": "newcomer", "role": "consumer"},
    "/api/accounts/{name}/keys": {"label": "bot"},
    "/api/calls/{call_id}/feedback": {"score": 0.5},
    "/api/calls/{call_id}/refunds": {**_WHY, "amount_usd": "0.000000001"},
    "/api/domains/{name}": {"examples": _EXAMPLES},
    "/api/keys/{key_id}/rotate": {"overlap_s": 60},
    "/api/plans": {"tiers": [{"from_usd": "0", "take_bps": 900}], **_WHY},
    "/api/pricing": {"scope": "provider", "subject": "acme", "controller": "posted", **_WHY},
    "/api/provider/deployments": msgspec.to_builtins(
        Stall(name="acme/two").offer("http://127.0.0.1:9")
    ),
    "/api/quotes": _ESTIMATE,
    "/api/route": _ESTIMATE,
    "/api/webhooks": _HOOK,
    "/api/webhooks/{webhook_id}/replay": {"from": _YESTERDAY.isoformat()},
}
"""Bodies that are taken, by the path."""


@dataclass(frozen=True)
class Standing:
    """What there is, and a key of each role."""

    keys: Sequence[str]
    words: Words

    def body(self, path: str, told: Any, random: Random) -> Any:
        """Return a body: what was made up, often with what fits put for most of it."""
        told, fitting = self.asked(told, random), FITTING.get(path)
        if fitting is None or not isinstance(told, Mapping) or random.random() > _OFTEN:
            return told
        return {**fitting, **{name: each for name, each in told.items() if random.random() < 0.3}}

    def asked(self, told: Any, random: Random) -> Any:
        """Return a value with what there is put for what was made up, often and anywhere in it."""
        if isinstance(told, Mapping):
            return {name: self._value(name, each, random) for name, each in told.items()}
        if isinstance(told, list):
            return [self.asked(each, random) for each in told]
        return told

    def _value(self, name: str, told: Any, random: Random) -> Any:
        known = self.words.get(name)
        if known and random.random() < _OFTEN:
            return random.choice(known)
        return self.asked(told, random)


async def stand(house: House) -> Standing:
    """Make one of each, and a call."""
    await house.enrol(Stall(name="acme/small"))
    shop, boss = await house.consumer("shop"), house.operator
    others = (("acme", Role.PROVIDER), ("boss", Role.OPERATOR))
    keys = [shop.key, *[await house.key(name, role) for name, role in others]]
    await house.key("spare", Role.CONSUMER)
    await _made(boss.put("/api/domains/law", json={"examples": _EXAMPLES}))
    await _made(boss.put("/api/suites/law", content=_ROW))
    calls = [(await _made(shop.http.post("/v1/chat/completions", json=_CHAT))) for _ in range(2)]
    call_ids = [each.headers["x-broker-call-id"] for each in calls]
    for call_id in call_ids:
        await house.story(shop, call_id)
    made = {
        "quote_id": shop.http.post("/api/quotes", json=_ESTIMATE),
        "webhook_id": shop.http.post("/api/webhooks", json=_HOOK),
        "dispute_id": shop.http.post(f"/api/calls/{call_ids[0]}/refund-request", json=_WHY),
        "choice_id": boss.post("/api/pricing", json=FITTING["/api/pricing"]),
    }
    ids = {name: [_id(await _made(asked))] for name, asked in made.items()}
    listed = (await boss.get("/api/deployments")).json()["deployments"]
    spare = (await boss.get("/api/accounts/spare/keys")).json()["keys"]
    ids |= {
        "call_id": call_ids,
        "deployment_id": [each["id"] for each in listed],
        "key_id": [each["id"] for each in spare],
        "name": ["spare", "law", "acme", "shop"],
    }
    return Standing(keys, {**SAID, **ids})


async def _made(asking: Any) -> httpx.Response:
    answer: httpx.Response = await asking
    assert answer.is_success, answer.text
    return answer


def _id(answer: httpx.Response) -> str:
    told = answer.json()
    found: str = next(told[name] for name in ("id", "quote_id", "dispute_id") if name in told)
    return found
