"""The demo market as data: five providers, what each offers and at which prices.

The chat models are one small model under different names and widths: what differs is what the
providers claim, what they ask for, and how reliable they are, which is what a broker weighs.
"""

from __future__ import annotations

from dataclasses import dataclass

from provider_sdk.protocol import CallBand, DeploymentOffer, EndpointOffer, Kind, TokenBand

CHAT_FAMILY = "smollm2-135m-instruct"
EMBEDDING_FAMILY = "multilingual-e5-small"
CONTEXT_TOKENS = 2048
"""Of one slot."""
OUTPUT_TOKENS_MAX = 512


@dataclass(frozen=True, slots=True)
class DemoProvider:
    """One account of the demo, with one deployment."""

    name: str
    about: str
    environment: str | None
    """Of `broker.demo.environments.ENVIRONMENTS`; None: runs in the broker's own."""
    kind: Kind
    capacity: int
    region: str
    endpoints: tuple[EndpointOffer, ...]
    guarded: bool = False
    """Whether its server wants an API key."""

    def offer(self, url: str, credential: str | None) -> DeploymentOffer:
        """What it registers, at the public address `url`."""
        return DeploymentOffer(
            name="cpu1",
            url=url,
            kind=self.kind,
            capacity=self.capacity,
            region=self.region,
            credential=credential,
            endpoints=list(self.endpoints),
        )


def _tokens(prices_in: tuple[str, str, str], prices_out: tuple[str, str, str]) -> TokenBand:
    """Floor, list and ceiling, in USD per million tokens."""
    floor_in, list_in, ceiling_in = prices_in
    floor_out, list_out, ceiling_out = prices_out
    return TokenBand(
        floor_in=floor_in,
        list_in=list_in,
        ceiling_in=ceiling_in,
        floor_out=floor_out,
        list_out=list_out,
        ceiling_out=ceiling_out,
    )


def _chat(name: str, quality: float, domains: dict[str, float], price: TokenBand) -> EndpointOffer:
    return EndpointOffer(
        name=name,
        model=CHAT_FAMILY,
        tasks=["chat", "completion"],
        domains=domains,
        quality=quality,
        context_length_tokens=CONTEXT_TOKENS,
        max_output_tokens=OUTPUT_TOKENS_MAX,
        price=price,
    )


def _classifier(name: str, domains: dict[str, float], price: CallBand) -> EndpointOffer:
    model = f"{name}-classifier"
    return EndpointOffer(
        name=name,
        model=model,
        upstream_model=name,
        tasks=["infer"],
        domains=domains,
        quality=max(domains.values()),
        price=price,
    )


PROVIDERS = (
    DemoProvider(
        name="tinyclass",
        about="scikit-learn classifiers on NVIDIA Triton",
        environment="triton",
        kind="kserve",
        capacity=16,
        region="eu",
        endpoints=(
            _classifier(
                "topic",
                {"support": 0.9, "general": 0.91},  # its held-out accuracy
                CallBand(floor_call="0.000005", list_call="0.00001", ceiling_call="0.0001"),
            ),
            _classifier(
                "digits",
                {"vision": 0.95},
                CallBand(floor_call="0.000002", list_call="0.000005", ceiling_call="0.00005"),
            ),
        ),
    ),
    DemoProvider(
        name="vectorworks",
        about="text to 384 numbers, in a hundred languages",
        environment="embed",
        kind="openai",
        capacity=1,
        region="eu",
        endpoints=(
            EndpointOffer(
                name="e5-small",
                model=EMBEDDING_FAMILY,
                upstream_model="multilingual-e5-small-q4",
                tasks=["embedding"],
                domains={"general": 0.7, "support": 0.7},
                quality=0.6,
                context_length_tokens=512,
                # Embeddings have no tokens out, so what these would cost does not matter.
                price=_tokens(("0.01", "0.02", "0.10"), ("0.01", "0.02", "0.10")),
            ),
        ),
    ),
    DemoProvider(
        name="smolchat",
        about="a small chat model on llama.cpp, cheap, four slots",
        environment="llm",
        kind="openai",
        capacity=4,
        region="eu",
        endpoints=(
            _chat(
                "chat",
                0.45,
                {"support": 0.65, "general": 0.5},
                _tokens(("0.02", "0.04", "0.20"), ("0.05", "0.10", "0.50")),
            ),
        ),
    ),
    DemoProvider(
        name="generalist",
        about="the dear one: good at everything by its own account, two slots, behind a key",
        environment="llm",
        kind="openai",
        capacity=2,
        region="us",
        endpoints=(
            _chat(
                "chat",
                0.75,
                {"general": 0.8, "support": 0.75, "code": 0.7},
                _tokens(("0.50", "0.60", "2.00"), ("0.80", "1.20", "2.00")),
            ),
        ),
        guarded=True,
    ),
    DemoProvider(
        name="flaky",
        # Not cheap, or plain calls of `auto` would go to its random words.
        about="a scripted server that fails every other call, and answers random words else",
        environment=None,
        kind="openai",
        capacity=4,
        region="us",
        endpoints=(
            _chat("chat", 0.2, {}, _tokens(("0.40", "0.50", "1.00"), ("0.80", "1.00", "2.00"))),
        ),
    ),
)

FLAKY_PACE = {"ttft_ms": 80, "tokens_per_s": 60, "output_tokens": 24}
_GOOD_CALLS_FIRST = 2
"""For the probes before it is listed."""
_ALTERNATIONS = 300


def flaky_script() -> dict[str, object]:
    """What the scripted provider is told: 503 to every other call, later to half of them."""
    failing = FLAKY_PACE | {"status": 503}
    return {
        **failing,
        "models": [CHAT_FAMILY],
        "capacity": 4,
        "fault_rate": 0.5,
        "sequence": [FLAKY_PACE] * _GOOD_CALLS_FIRST + [failing, FLAKY_PACE] * _ALTERNATIONS,
    }
