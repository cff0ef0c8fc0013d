"""The page that describes the endpoints, from the OpenAPI schema: without scripts, and without another host's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any


def api_page(schema: Mapping[str, Any]) -> str:
    """Write the page."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, one in methods.items():
            about = f"<p>{escape(one['description'])}</p>" if one.get("description") else ""
            parts.append(
                f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(one.get('summary', ''))}</p>"
                f"{about}{_body(schema, one)}</section>"
            )
    title = f"{escape(schema['info']['title'])} {escape(schema['info']['version'])}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title}: HTTP API</title><link rel="stylesheet" href="/static/style.css">'
        f'<main class="api"><h1>{title}: HTTP API</h1><p><a href="/">The page</a> · '
        '<a href="/openapi.json">OpenAPI schema</a> · errors are problem documents (RFC 9457)</p>'
        f"{''.join(parts)}</main></html>"
    )


def _body(schema: Mapping[str, Any], operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if not content:
        return ""
    name = content["$ref"].rpartition("/")[2]
    rows = []
    body = schema["components"]["schemas"][name]
    for field, about in body["properties"].items():
        kinds = [_kind(one) for one in about.get("anyOf", [about])]
        shown = " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
        needed = "required" if field in body.get("required", ()) else escape(json.dumps(about.get("default")))
        rows.append(
            f"<tr><td><code>{escape(field)}</code></td><td>{escape(shown)}</td><td>{needed}</td>"
            f"<td>{escape(about.get('description', ''))}</td></tr>"
        )
    head = "<tr><th>field</th><th>type</th><th>default</th><th>meaning</th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _kind(one: Mapping[str, Any]) -> str:
    if "$ref" in one:
        return str(one["$ref"]).rpartition("/")[2]
    if "enum" in one:
        return " | ".join(json.dumps(value) for value in one["enum"])
    if one.get("type") == "array":
        return f"list of {_kind(one.get('items', {}))}"
    return {"object": "object", "string": "text"}.get(one.get("type", ""), str(one.get("type", "any")))
