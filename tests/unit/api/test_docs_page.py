"""What the API says of itself can be read as YAML by others."""

from __future__ import annotations

import pytest
import yaml

from broker.api.docs_page import yaml_of


@pytest.mark.parametrize(
    "value",
    [
        {"a": [], "b": {}, "c": [[1, {"x": None, "y": [True, -1.5]}], "yes", "1", "a: b # c\n"]},
        {"~": 1, "": {"on": {"- deep": ["\"é'", {"{": "}"}]}}, "200": "x" * 300},
        [{"$ref": "#/components"}, [[[]]], [{}, {"a": 1, "b": 2}]],
        {},
        "alone",
    ],
)
def test_what_is_written_as_yaml_is_read_as_it_was(value: object) -> None:
    assert yaml.safe_load(yaml_of(value)) == value
