"""Which 500s are the caller's fault: the words are those of Triton 2.51 and llama.cpp's server."""

from __future__ import annotations

import pytest

from broker.upstream.blame import status_meant

AT_THE_REQUEST = [
    "failed to parse the request JSON buffer: Missing a name for object member. at 1",
    "failed to get request params.: attempt to get members for non-object",
    "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'",
    "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
    "Failed to parse messages: [json.exception.type_error.302] type must be string",
    "Failed to parse tools: Expected 'tools' to be an array, got \"a\"",
    "image input is not supported - hint: if this is unexpected, you may need the mmproj",
]


@pytest.mark.parametrize("said", AT_THE_REQUEST)
def test_a_500_that_refuses_the_request_means_400(said: str) -> None:
    assert status_meant(500, said) == 400


@pytest.mark.parametrize("said", ["", "out of memory", "the model failed: Unable to parse "])
def test_a_500_of_other_words_is_the_servers_own(said: str) -> None:
    assert status_meant(500, said) == 500


@pytest.mark.parametrize("status", [400, 429, 503])
def test_another_status_means_itself(status: int) -> None:
    assert status_meant(status, AT_THE_REQUEST[0]) == status
