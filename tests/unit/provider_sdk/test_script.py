"""A script is read from a file, or its writer is told which field to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from provider_sdk.testing.script import Script, ScriptWrong, read_script
from provider_sdk.testing.scripted import main


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"latncy_ms": 5}', "field `latncy_ms`: there is no such field; `latency_ms`?"),
        ('{"sequence": [{"stats": 5}]}', "field `sequence[0].stats`: there is no such field"),
        ('{"status": "500"}', "field `status`: Expected `int`, got `str`"),
        ('{"kind": "grpc"}', "field `kind`: 'grpc' is none of openai, kserve"),
        ('{"status": 500', "Input data was truncated"),
        ("\xff", "byte"),
    ],
)
def test_what_is_wrong_with_a_script_is_told_with_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    path = tmp_path / "script.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScriptWrong, match=r"script\.json: ") as caught:
        read_script(path)
    assert told in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["--script", str(path)])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptWrong, match=r"none\.json: No such file"):
        read_script(tmp_path / "none.json")


def test_a_script_is_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('{"status": 503, "sequence": [{"ttft_ms": 5}]}')
    assert read_script(path) == Script(status=503, sequence=(Script(ttft_ms=5),))
