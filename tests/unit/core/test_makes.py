"""What an endpoint is, taken from an offer."""

from __future__ import annotations

from broker.core.catalog import Kind
from broker.core.terms import make_of
from tests.integration.catalog.offers import endpoint_offer


def test_the_text_of_a_tokenizer_is_kept_and_not_taken_apart() -> None:
    text = "[" * 100_000  # whether it may run is asked where no call waits for the answer
    assert (
        make_of(endpoint_offer(tokenizer_json=text), Kind.OPENAI, "endpoints[0]").tokenizer_json
        == text
    )
