"""The OpenAPI document as one HTML page: no script, nothing fetched from elsewhere, readable in a text browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import msgspec

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .2rem .6rem .2rem 0;
vertical-align: top; border-top: 1px solid var(--line); } .method { display: inline-block; min-width: 3.4rem;
font-weight: 600; } .note { opacity: .75; }
"""

_BOUNDS = {"minimum": "from", "maximum": "to", "minLength": "of at least", "pattern": "like"}


def page(document: Mapping[str, Any]) -> str:
    """The page."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f'<p class="note">{escape(info["summary"])}</p><p>{escape(info["description"])}</p>',
        '<p>The same for programs: <a href="openapi.json"><code>/openapi.json</code></a> (OpenAPI 3.1).</p>',
        f"<p>{escape(_keys(document))}</p>",
    ]
    for tag in (tag["name"] for tag in document["tags"]):
        found = list(_operations(document, tag))
        if found:
            parts.append(f"<h2>{escape(tag)}</h2>")
            parts += [_operation(document, method, path, operation) for method, path, operation in found]
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _keys(document: Mapping[str, Any]) -> str:
    if document["security"]:
        return "Send your key as Authorization: Bearer YOUR_KEY, or as X-Api-Key."
    return "This gateway asks for no key."


def _operations(document: Mapping[str, Any], tag: str) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if isinstance(operation, Mapping) and tag in operation.get("tags", ()):
                yield method.upper(), path, operation


def _operation(document: Mapping[str, Any], method: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<details><summary><span class="method">{method}</span> <code>{escape(path)}</code> ',
        f'<span class="note">{escape(operation["summary"])}</span></summary>',
    ]
    body = operation.get("requestBody")
    if body:
        schema = _resolved(document, body["content"]["application/json"]["schema"])
        parts.append("<h4>Body (more fields pass through)</h4>" + _fields(document, schema))
    if operation.get("parameters"):
        parts.append("<h4>Headers</h4>" + _headers(document, operation["parameters"]))
    parts.append("<h4>Answers</h4><table>")
    for status, answer in operation["responses"].items():
        types = ", ".join(answer.get("content", ()))
        parts.append(
            f"<tr><td><code>{status}</code></td><td>{escape(answer['description'])}</td>"
            f'<td class="note">{escape(types)}</td></tr>'
        )
    parts.append("</table></details>")
    return "".join(parts)


def _headers(document: Mapping[str, Any], references: Iterable[Mapping[str, str]]) -> str:
    known = document["components"]["parameters"]
    rows = (known[reference["$ref"].rsplit("/", 1)[-1]] for reference in references)
    cells = (
        f'<tr><td><code>{escape(row["name"])}</code></td><td class="note">{escape(_words(row["schema"]))}</td>'
        f"<td>{escape(row['description'])}</td></tr>"
        for row in rows
    )
    return f"<table>{''.join(cells)}</table>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        needed = "required" if name in required else ""
        told = _words(_resolved(document, field))
        rows.append(
            f'<tr><td><code>{escape(name)}</code></td><td class="note">{needed}</td><td>{escape(told)}</td></tr>'
        )
    return f"<table>{''.join(rows)}</table>"


def _words(schema: Mapping[str, Any]) -> str:
    """What a value must be, for a person."""
    if "anyOf" in schema:
        return " or ".join(_words(part) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " or ".join(msgspec.json.encode(value).decode() for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_words(schema.get('items', {}))}"
    if kind == "object" and schema.get("properties"):
        return "{" + ", ".join(f"{name}: {_words(field)}" for name, field in schema["properties"].items()) + "}"
    bounds = [f"{told} {schema[name]}" for name, told in _BOUNDS.items() if name in schema]
    return " ".join([kind, *bounds])


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return found
