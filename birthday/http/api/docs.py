"""The pages under ``/docs``: Swagger UI, from files that are installed with the product, and what problems mean."""

import asyncio
import gzip
from functools import cache
from importlib.resources import files
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from birthday.http.conditional import answer_condition
from birthday.http.headers import accepts_gzip
from birthday.http.kinds import KINDS, PAGE
from birthday.http.route import Handler

_SWAGGER_UI: Final = files("mkdocs_swagger_ui_tag") / "swagger-ui"
_FILES: Final = {"swagger-ui.css": "stylesheets", "swagger-ui-bundle.js": "javascripts"}

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Birthday Scheduler API</title>
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="/docs/{sheet}">
  </head>
"""
_API: Final = (
    _HEAD.format(sheet="swagger-ui.css")
    + """  <body>
    <div id="swagger-ui"></div>
    <script src="/docs/swagger-ui-bundle.js"></script>
    <script src="/docs/start.js"></script>
  </body>
</html>
"""
)
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_STYLE: Final = """body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 42rem; padding: 0 1rem }
h2 { font: 1.1rem ui-monospace, monospace; margin: 2rem 0 0 }
:target { background: Highlight }
"""
_KIND: Final = """
    <h2 id="{0.code}">{0.code}</h2>
    <p><strong>{0.status:d} {0.title}.</strong> {0.meaning}</p>"""
_PROBLEMS: Final = (
    _HEAD.format(sheet="problems.css")
    + """  <body>
    <h1>Problems</h1>
    <p>Each error of the API is a problem document (RFC 9457), with one of these as its code.</p>"""
    + "".join(map(_KIND.format, KINDS.values()))
    + """
  </body>
</html>
"""
)
_POLICY: Final = (
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_KEPT: Final = {hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: hdrs.ACCEPT_ENCODING}


def routes() -> list[web.RouteDef]:
    """Return the routes of the pages."""
    texts = {
        "/docs": (_API, "text/html"),
        "/docs/start.js": (_START, "text/javascript"),
        PAGE: (_PROBLEMS, "text/html"),
        f"{PAGE}.css": (_STYLE, "text/css"),
    }
    return [*(web.get(path, _text(*text)) for path, text in texts.items()), web.get("/docs/{name}", _file)]


def _text(text: str, content_type: str) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        page = web.Response(text=text, content_type=content_type, headers={"Content-Security-Policy": _POLICY})
        return _kept(request, page)

    return answer


async def _file(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in _FILES:
        raise web.HTTPNotFound
    if not accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        return web.FileResponse(_path(name), headers=_KEPT)
    media_type = guess_type(name)[0] or "text/plain"
    packed = await asyncio.to_thread(_packed, name)
    headers = {hdrs.CONTENT_ENCODING: "gzip"}
    return _kept(request, web.Response(body=packed, content_type=media_type, headers=headers))


def _path(name: str) -> str:
    return str(_SWAGGER_UI / _FILES[name] / name)


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(Path(_path(name)).read_bytes(), mtime=0)


def _kept(request: web.Request, response: web.Response) -> web.StreamResponse:
    """Let the client keep what the program brings along, and ask whether it has changed."""
    answer = answer_condition(request, response)
    answer.headers.update(_KEPT)
    return answer
