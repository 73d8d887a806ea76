"""How a v2 path is taken apart, with a slash in the model's name or without."""

from __future__ import annotations

import pytest

from broker.errors import NotAllowed, NotFound
from broker.gateway.kserve import Path, parse_path


@pytest.mark.parametrize(
    ("path", "verb"),
    [
        ("/v2", "metadata"),
        ("/v2/", "metadata"),
        ("/v2/health/live", "live"),
        ("/v2/health/ready", "ready"),
        ("/v2/repository/index", "index"),
    ],
)
def test_the_servers_own_paths_name_no_model(path: str, verb: str) -> None:
    assert parse_path(path) == Path(verb)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("auto", "auto"),
        ("small", "small"),
        ("acme/small", "acme/small"),
        ("acme--small", "acme/small"),
        ("acme%2Fsmall", "acme/small"),
        ("infer/small", "infer/small"),
        ("two%20words", "two words"),
    ],
)
@pytest.mark.parametrize("version", [None, "1", "2024-01"])
@pytest.mark.parametrize("verb", ["", "infer", "ready", "config"])
def test_a_model_may_be_written_with_a_slash_or_two_dashes(
    name: str, model: str, version: str | None, verb: str
) -> None:
    path = f"/v2/models/{name}"
    path += f"/versions/{version}" if version else ""
    path += f"/{verb}" if verb else ""
    assert parse_path(path) == Path(verb, model, version)
    assert parse_path(f"{path}/") == Path(verb, model, version)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models",
        "/v2/models/",
        "/v2/models/acme/small/large/infer",
        "/v2/models/small/versions",
        "/v2/models/small/versions/1/2/infer",
        "/v2/health",
        "/v2x/models/small/infer",
        "/v2/elsewhere",
    ],
)
def test_what_is_no_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        parse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/repository",
        "/v2/repository/other/index",
        "/v2//repository/index",
        "/v2/repository/models/small/load",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/x/register",
        "/v2/trace/setting",
        "/v2/logging",
        "/v2//logging",
        "/v2/models/small/trace/setting",
        "/v2/models/../repository/index",
        "/v2/models/%2e%2e/repository/index",
    ],
)
def test_what_reaches_into_a_providers_host_is_denied(path: str) -> None:
    with pytest.raises(NotAllowed):
        parse_path(path)


@pytest.mark.parametrize(
    "model", ["", "/small", "/acme/small", "/acme--small", "/small/versions/1", "/stats"]
)
def test_who_asks_for_statistics_is_told_where_the_broker_tells_of_calls(model: str) -> None:
    with pytest.raises(NotFound, match=r"Statistics are not served; GET /api/calls"):
        parse_path(f"/v2/models{model}/stats")
    assert parse_path("/v2/models/stats/infer") == Path("infer", "stats")


def test_an_address_that_ends_in_v2_is_told_so() -> None:
    with pytest.raises(NotFound, match="address has no path"):
        parse_path("/v2/v2/models/small/infer")
