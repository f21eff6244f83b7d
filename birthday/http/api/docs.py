"""The page at ``/docs``: Swagger UI from files that are installed with the product, so that it needs no internet."""

from typing import Any

import orjson
from aiohttp import web
from swagger_ui_bundle import swagger_ui_path

from birthday.http.kinds import KINDS, PAGE

_FILES = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-16x16.png"})

_PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Birthday Scheduler API</title>
    <link rel="icon" type="image/png" href="/docs/favicon-16x16.png">
    <link rel="stylesheet" href="/docs/swagger-ui.css">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""

_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"


_PROBLEMS = """<!DOCTYPE html>
<html lang="en">
  <head><meta charset="utf-8"><title>Problems</title></head>
  <body>
    <h1>Problems</h1>
    <p>Every error of the API is a problem document (RFC 9457). Its code is one of these.</p>
    {}
  </body>
</html>
"""
_PROBLEM = '<h2 id="{0.code}">{0.code}</h2><p>{0.status:d} {0.title}. {0.meaning}</p>'


def routes(document: dict[str, Any]) -> list[web.RouteDef]:
    """Return the routes of the page that shows an OpenAPI 3.1 document."""
    readable = orjson.dumps(as_openapi_3_0(document))

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def problems(_request: web.Request) -> web.Response:
        kinds = "\n    ".join(_PROBLEM.format(kind) for kind in KINDS.values())
        return web.Response(text=_PROBLEMS.format(kinds), content_type="text/html")

    async def start(_request: web.Request) -> web.Response:
        return web.Response(text=_START, content_type="text/javascript")

    async def openapi(_request: web.Request) -> web.Response:
        return web.Response(body=readable, content_type="application/json")

    async def file(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _FILES:
            raise web.HTTPNotFound
        return web.FileResponse(swagger_ui_path / name)

    return [
        web.get("/docs", page),
        web.get(PAGE, problems),
        web.get("/docs/start.js", start),
        web.get("/docs/openapi.json", openapi),
        web.get("/docs/{name}", file),
    ]


def as_openapi_3_0(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as the installed Swagger UI reads it.

    It knows OpenAPI 3.0 only, where ``null`` is not a type and a schema has one example.
    """
    return {name: _translated(part) for name, part in document.items()} | {"openapi": "3.0.3"}


def _translated(node: object) -> object:
    if isinstance(node, list):
        return [_translated(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {name: _translated(value) for name, value in node.items()}
    if isinstance(examples := plain.get("examples"), list):
        del plain["examples"]
        plain["example"] = examples[0]
    match plain.get("type"):
        case "null":
            return {"enum": [None], "nullable": True}
        case [kind, "null"]:
            return plain | {"type": kind, "nullable": True}
        case _:
            return plain
