"""Loads scenarios: by the name of one that comes with the project, or by the path of a file.

What is wrong with a file is told with its name and line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from broker.errors import BrokerError
from pricing.choice import ChoiceMalformed, build_controller
from simulations.files.expand import expand
from simulations.files.lines import Path as Place
from simulations.files.lines import line_of
from simulations.files.overrides import Plain, parse_value, set_value
from simulations.files.plain import made
from simulations.files.recorded import read_in
from simulations.files.scalars import Fault
from simulations.files.sense import make_sense
from simulations.pace import pace_of
from simulations.scenario import Scenario, ScenarioMalformed

ENDING = ".toml"
BYTE_ORDER_MARK = "\ufeff"
"""What editors on Windows begin a file with, and TOML does not know."""
_AT = re.compile(r"\(at line (\d+), column \d+\)")


class ScenarioFileMalformed(BrokerError):
    """A file that is no scenario; `facts` name file, line and field."""

    status = 422
    code = "scenario_malformed"


@dataclass(frozen=True, slots=True)
class ScenarioText:
    """A scenario as it was written: its text, what the parser made of it, and where it lies."""

    name: str
    where: str
    """As messages call it."""
    text: str
    plain: Plain
    folder: Path | None
    """What names of traces are relative to; None where only those of the project may be read."""

    def build(self, settings: Sequence[tuple[str, object]] = ()) -> Scenario:
        """Return the scenario with these values set. Raises ScenarioFileMalformed."""
        return scenario_of(self.changed(settings))

    def changed(self, settings: Sequence[tuple[str, object]]) -> ScenarioText:
        """Return the same with these values set. Raises ScenarioFileMalformed."""
        plain = deepcopy(self.plain)
        for name, value in settings:
            try:
                set_value(plain, name, value)
            except Fault as fault:
                at = dotted(fault.path)
                told = fault.detail if name.startswith(at) else f"{at} {fault.detail}"
                raise _malformed(f"{name}: {told}", fault) from None
        return replace(self, plain=plain)

    def read(self) -> ScenarioText:
        """Return the same with its files read, so that no other place needs them.

        Raises ScenarioFileMalformed.
        """
        try:
            return replace(self, plain=read_in(self.plain, self.folder), folder=None)
        except Fault as fault:
            raise _at_line(self, fault) from None


def names() -> list[str]:
    """Return the names of the scenarios that come with the project."""
    return sorted(_packaged())


def load(source: str) -> ScenarioText:
    """Read a scenario by name or path. Raises ScenarioFileMalformed."""
    packaged = _packaged()
    if source in packaged:
        path = packaged[source]
    elif source.endswith(ENDING) or "/" in source:
        path = Path(source)
    else:
        raise ScenarioFileMalformed(
            f"There is no scenario '{source}'; there are {', '.join(sorted(packaged))}, and files "
            f"whose name ends in {ENDING}."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ScenarioFileMalformed(f"{path} cannot be read: {why}.") from None
    return parse(text, str(path) if source not in packaged else path.name, path.parent)


def parse(text: str, where: str, folder: Path | None = None) -> ScenarioText:
    """Read a scenario from its text. Raises ScenarioFileMalformed."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT.search(str(error))
        line = int(found[1]) if found else len(text.splitlines())
        told = _AT.sub("", str(error)).strip()
        raise ScenarioFileMalformed(
            f"{where}:{line}: {told}.", facts={"file": where, "line": line}
        ) from None
    name = Path(where).name.removesuffix(ENDING)
    plain.setdefault("name", name)
    return ScenarioText(str(plain["name"]), where, text, plain, folder)


def parse_settings(words: Sequence[str]) -> list[tuple[str, object]]:
    """Return what `--set key=value` asks for. Raises ScenarioFileMalformed."""
    settings = []
    for each in words:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise ScenarioFileMalformed(f"'{each}' is not written KEY=VALUE.")
        settings.append((name.strip(), parse_value(value.strip())))
    return settings


def scenario_of(written: ScenarioText) -> Scenario:
    """Return the scenario. Raises ScenarioFileMalformed."""
    written = written.read()
    try:
        full = expand(written.plain)
    except Fault as fault:
        raise _at_line(written, fault) from None
    try:
        scenario: Scenario = made(Scenario, full.plain)
        _check(scenario)
    except Fault as fault:
        raise _at_line(written, Fault(full.written(fault.path), fault.detail)) from None
    except ScenarioMalformed as error:
        place = tuple(int(each) if each.isdecimal() else each for each in error.field.split("."))
        told = error.detail.removeprefix(f"{error.field}: ")
        raise _at_line(written, Fault(full.written(place), told)) from None
    return scenario


def dotted(path: Place) -> str:
    """Return a path as messages write it."""
    return ".".join(map(str, path))


def _check(scenario: Scenario) -> None:
    """Check what the types do not say. Raises Fault, ScenarioMalformed."""
    make_sense(scenario)
    pace_of(scenario)
    try:
        build_controller(scenario.prices.controller, scenario.prices.parameters)
    except ChoiceMalformed as error:
        place = ("prices", *error.field.split("."))
        raise Fault(place, f"{error.detail}.") from None


def _at_line(written: ScenarioText, fault: Fault) -> ScenarioFileMalformed:
    line = line_of(written.text, fault.path)
    where = written.where if line is None else f"{written.where}:{line}"
    at = f"{dotted(fault.path)}: " if fault.path else ""
    return _malformed(f"{where}: {at}{fault.detail}", fault, written.where, line)


def _malformed(
    told: str, fault: Fault, where: str | None = None, line: int | None = None
) -> ScenarioFileMalformed:
    return ScenarioFileMalformed(
        told, facts={"file": where, "line": line, "field": dotted(fault.path)}
    )


def _packaged() -> dict[str, Path]:
    return {path.name.removesuffix(ENDING): path for path in _scenarios()}


def _scenarios() -> Iterator[Path]:
    folder = Path(str(files("simulations"))) / "scenarios"
    return folder.glob(f"*{ENDING}")
