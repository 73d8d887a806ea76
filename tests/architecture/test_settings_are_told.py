"""What a broker is told by its environment can be told to the machines of the compose file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from broker.settings import Settings

ROOT = Path(__file__).parents[2]


class Asked(Mapping[str, str]):
    """An environment that notes what it is asked for."""

    def __init__(self, given: dict[str, str]) -> None:
        self.names: set[str] = set()
        self._given = given

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def test_every_setting_is_in_the_compose_file() -> None:
    asked = Asked({"DATABASE_URL": "d", "VALKEY_URL": "v", "BROKER_SECRET_KEY": "ab" * 32})
    Settings.from_env(asked)
    assert len(asked.names) > 15
    told = (ROOT / "docker-compose.yml").read_text()
    assert not [name for name in asked.names if f"\n    {name}: " not in told]


def test_a_setting_that_is_left_empty_is_as_usual() -> None:
    needed = {"DATABASE_URL": "d", "VALKEY_URL": "v", "BROKER_SECRET_KEY": "ab" * 32}
    asked = Asked(needed)
    usual = Settings.from_env(asked)
    empty = dict.fromkeys(asked.names - {"BROKER_PUBLIC_URL"}, "") | needed
    assert Settings.from_env(empty) == usual
