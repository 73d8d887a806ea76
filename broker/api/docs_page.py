"""Tells people what there is under `/api`: a page without scripts, of the description for tools."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.enums import MediaType, OpenAPIMediaType
from litestar.openapi.plugins import OpenAPIRenderPlugin

_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
summary { cursor: pointer; padding: .2rem 0; overflow-wrap: anywhere }
summary b { display: inline-block; width: 4.5rem; font-weight: 600 }
code { font-size: .9rem } small, p { opacity: .75 }
ul { margin: .2rem 0 .8rem; padding-left: 5.5rem }
"""


class PagePlugin(OpenAPIRenderPlugin):
    """The page at the root of the descriptions; made once, for it never changes."""

    def __init__(self) -> None:
        super().__init__(path="/", media_type=MediaType.HTML)
        self._page: bytes | None = None

    def render(self, _: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page as HTML."""
        if self._page is None:
            self._page = page_of(openapi_schema).encode()
        return self._page


class YamlPlugin(OpenAPIRenderPlugin):
    """The description as YAML, written by hand: a library takes a fifth of a second for it, in
    which no call is served."""

    def __init__(self) -> None:
        super().__init__(
            path=("/openapi.yaml", "/openapi.yml"), media_type=OpenAPIMediaType.OPENAPI_YAML
        )

    def render(self, _: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the description as YAML."""
        return yaml_of(msgspec.to_builtins(openapi_schema)).encode()


def yaml_of(value: object, margin: str = "") -> str:
    """Return a value of objects, lists and what these are made of as YAML, in which a text may be
    written as in JSON; margin: what each line begins with."""
    inner = margin + "  "
    if isinstance(value, dict) and value:
        parts = [
            f"{msgspec.json.encode(name).decode()}: {yaml_of(value[name], inner)}" for name in value
        ]
    elif isinstance(value, list) and value:
        parts = [f"- {yaml_of(each, inner)}" for each in value]
    else:
        return msgspec.json.encode(value).decode()
    return "".join(f"\n{margin}{part}" for part in parts)


def page_of(schema: Mapping[str, Any]) -> str:
    """Return all operations of an OpenAPI description by their tags, as HTML."""
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, operations in sorted(schema["paths"].items()):
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["Others"])[0]
            by_tag[tag].append(_operation(method, path, operation, schema))
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    groups = "".join(f"<h2>{escape(tag)}</h2>{''.join(by_tag[tag])}" for tag in sorted(by_tag))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1><p>Send <code>Authorization: Bearer "
        'bk_...</code>. For tools: <a href="/api/docs/openapi.json">openapi.json</a>. Calls go to '
        "<code>/v1</code> and <code>/v2</code>, as OpenAI's and KServe's.</p>"
        f"{groups}</body></html>"
    )


def _operation(
    method: str, path: str, operation: Mapping[str, Any], schema: Mapping[str, Any]
) -> str:
    head = (
        f"<b>{escape(method.upper())}</b><code>{escape(path)}</code> "
        f"<small>{escape(operation.get('summary') or '')}</small>"
    )
    parts = "".join(f"<li>{each}</li>" for each in _parts(operation, schema))
    return f"<details><summary>{head}</summary><ul>{parts or '<li>takes nothing'}</ul></details>"


def _parts(operation: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an operation takes: parameters, then the members of its body."""
    for each in operation.get("parameters", ()):
        yield _part(each["name"], each["in"], each.get("required"), each.get("description"))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = content["schema"]
        name = body.get("$ref", "").rpartition("/")[2]
        body = schema["components"]["schemas"].get(name, body)
        needed = body.get("required", ())
        for member, told in body.get("properties", {}).items():
            yield _part(member, "body", member in needed, told.get("description"))


def _part(name: str, where: str, needed: object, about: str | None) -> str:
    told = f"{where}, needed" if needed else where
    if about:
        told = f"{told}: {about}"
    return f"<code>{escape(name)}</code> <small>{escape(told)}</small>"
