"""Which path a client means, and what it is told where there is nothing."""

from __future__ import annotations

import pytest

from broker.gateway.ways import hint, is_of_clients, meant


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/completions/", "/v1/completions"),
        ("/embeddings", "/v1/embeddings"),
        ("/models", "/v1/models"),
        ("/models/acme/small", "/v1/models/acme/small"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1//chat//completions/", "/v1/chat/completions"),
        ("//v2/models/m/infer", "/v2/models/m/infer"),
        ("/v1/v1/embeddings", "/v1/v1/embeddings"),
        ("/modelsx", "/modelsx"),
        ("/responses", "/responses"),
        ("/", "/"),
    ],
)
def test_slashes_too_many_and_a_missing_v1_are_overlooked(path: str, served: str) -> None:
    assert meant(path) == served
    assert meant(served) == served, "what is meant is meant as it stands"


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v2",
        "/v1/models",
        "/responses",
        "/api/v1/chat/completions",
        "/api/v1/models",
        "/openai/deployments/small/chat/completions",
        "/openai/v1/embeddings",
    ],
)
def test_what_openai_s_clients_ask_for_is_told_in_their_shape(path: str) -> None:
    assert is_of_clients(path)


@pytest.mark.parametrize(
    "path", ["/", "/v1x", "/console", "/api/calls", "/api/accounts/a/completions", "/metrics"]
)
def test_what_is_no_client_s_of_a_model_is_left_to_the_others(path: str) -> None:
    assert not is_of_clients(path)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1", "address and /v1"),
        ("/v1/v1/chat/completions", "address and /v1"),
        ("/openai/deployments/small/chat/completions", "address and /v1"),
        ("/v1/responses", "Set the client to chat completions"),
        ("/responses", "Set the client to chat completions"),
    ],
)
def test_a_client_that_is_set_wrongly_is_told_to_what_to_set_it(path: str, told: str) -> None:
    assert told in hint(path)


def test_what_is_served_nowhere_has_no_hint() -> None:
    assert hint("/v1/audio/speech") == ""
