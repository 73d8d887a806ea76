"""Origins and request heads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import RequestMalformed
from broker.upstream.client import Origin, head_prefix, request_head, sized


@pytest.mark.parametrize(
    ("url", "origin", "prefix", "authority"),
    [
        ("http://a.example", ("http", "a.example", 80), "", b"a.example"),
        ("https://A.Example/llm/", ("https", "a.example", 443), "/llm", b"a.example"),
        ("http://a.example:8000/x/y", ("http", "a.example", 8000), "/x/y", b"a.example:8000"),
        ("https://a.example:443", ("https", "a.example", 443), "", b"a.example"),
        ("https://a.example:80", ("https", "a.example", 80), "", b"a.example:80"),
        ("http://[::1]:9", ("http", "::1", 9), "", b"[::1]:9"),
        ("http://bücher.example", ("http", "xn--bcher-kva.example", 80), "", None),
    ],
)
def test_a_url_is_split_into_origin_and_prefix(
    url: str, origin: tuple[str, str, int], prefix: str, authority: bytes | None
) -> None:
    parsed, path_prefix = Origin.parse(url)
    assert parsed == Origin(*origin)
    assert hash(parsed) == hash(Origin(*origin))
    assert path_prefix == prefix
    assert authority is None or parsed.authority == authority


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "ftp://a.example",
        "file:///etc/passwd",
        "http://",
        "http://user:pw@a.example",
        "http://a.example?x",
        "http://a.example#x",
        "http://a.example:99999",
        "http://a.example:0",
        "http://a b.example",
        "http://a.example/x y",
        "http://a.example/é",
        "http://a\\.example",
        "http://[::1",
        "http://" + "a" * 70 + ".example",
    ],
)
def test_a_url_that_says_too_little_or_too_much_is_refused(url: str) -> None:
    with pytest.raises(RequestMalformed):
        Origin.parse(url)


def test_a_head_is_what_was_asked_for() -> None:
    headers = [(b"Content-Type", b"application/json"), (b"x-a", b"")]
    assert request_head(b"POST", b"/v1/x?y=z", b"a.example", headers, 7) == (
        b"POST /v1/x?y=z HTTP/1.1\r\nhost: a.example\r\ncontent-type: application/json\r\nx-a: \r\n"
        b"content-length: 7\r\n\r\n"
    )
    assert request_head(b"GET", b"/", b"a", [], None) == b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def test_a_prefix_completed_later_is_the_same_head() -> None:
    parts = (b"POST", b"/", b"a", [(b"x", b"y")])
    assert sized(head_prefix(*parts), 12) == request_head(*parts, 12)


@pytest.mark.parametrize("poison", [b"\r", b"\n", b"\r\n", b"\0", b"\r\nx: y", b"\r\n\r\nGET / "])
def test_line_breaks_and_nul_cannot_enter_a_head(poison: bytes) -> None:
    for method, target, host, name, value in (
        (b"PO" + poison, b"/", b"a", b"x", b"y"),
        (b"POST", b"/" + poison, b"a", b"x", b"y"),
        (b"POST", b"/", b"a" + poison, b"x", b"y"),
        (b"POST", b"/", b"a", b"x" + poison, b"y"),
        (b"POST", b"/", b"a", b"x", b"y" + poison),
    ):
        with pytest.raises(RequestMalformed):
            request_head(method, target, host, [(name, value)], 1)


@pytest.mark.parametrize(
    "name",
    [b"Content-Length", b"transfer-encoding", b"Host", b"upgrade", b"expect", b"", b"a b", b"a:"],
)
def test_headers_that_frame_a_request_are_the_clients_own(name: bytes) -> None:
    with pytest.raises(RequestMalformed):
        head_prefix(b"POST", b"/", b"a", [(name, b"x")])


@pytest.mark.parametrize("target", [b"", b"x", b"/ HTTP/1.1", b"http://b/", b"*"])
def test_a_target_is_one_path(target: bytes) -> None:
    with pytest.raises(RequestMalformed):
        head_prefix(b"GET", target, b"a", [])


@given(
    headers=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4),
    target=st.binary(max_size=9),
)
def test_a_head_that_is_accepted_has_exactly_the_lines_asked_for(
    headers: list[tuple[bytes, bytes]], target: bytes
) -> None:
    try:
        head = request_head(b"POST", b"/" + target, b"a", headers, 3)
    except RequestMalformed:
        return
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /" + target + b" HTTP/1.1"
    assert lines[2:-3] == [name.lower() + b": " + value for name, value in headers]
    assert lines[-3:] == [b"content-length: 3", b"", b""]
