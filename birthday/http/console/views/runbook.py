"""The runbook, as this version has it: an operator may have no other copy at hand, and no internet."""

import asyncio
import re
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from markupsafe import Markup

from birthday.config import Scope
from birthday.http.console.rendering import page
from birthday.http.console.view import View

if TYPE_CHECKING:
    from markdown_it.token import Token

_NOT_IN_ANCHOR: Final = re.compile(r"[^\w\- ]")


async def runbook(request: web.Request) -> web.StreamResponse:
    """Show the runbook; the sections have the anchors that the alerts name."""
    return page(request, "runbook.html", title="Runbook", text=await asyncio.to_thread(_render))


@cache
def _render() -> Markup:
    """Return the text as HTML. It is ours, so its markup is trusted."""
    from markdown_it import MarkdownIt  # noqa: PLC0415 - most processes never need it

    reader = MarkdownIt("commonmark").enable("table")
    tokens = reader.parse(_read())
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(inside.content))
        elif token.type in {"th_open", "td_open"}:
            # How a column is aligned: the policy of the pages forbids styles of single elements.
            token.attrs.pop("style", None)
        elif token.type == "inline":
            token.children = _without_dead_links(token.children or [])
    text: str = reader.renderer.render(tokens, reader.options, {})
    # What scrolls sideways must be within reach of the keyboard.
    return Markup(text.replace("<pre>", '<pre tabindex="0">').replace("<table>", '<table tabindex="0">'))  # noqa: S704


def _read() -> str:
    installed = files("birthday") / "docs" / "runbook.md"
    found = installed if installed.is_file() else Path(__file__).resolve().parents[4] / "docs" / "runbook.md"
    return found.read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return _NOT_IN_ANCHOR.sub("", heading.lower()).replace(" ", "-")


def _without_dead_links(tokens: "list[Token]") -> "list[Token]":
    """Return the tokens of a text, without links to documents that are not served here."""
    kept, dead = [], False
    for token in tokens:
        if token.type == "link_open":
            dead = not str(token.attrGet("href")).startswith(("#", "https://"))
        if not (dead and token.type in {"link_open", "link_close"}):
            kept.append(token)
    return kept


VIEWS: Final = (View("GET", "/runbook", Scope.READ, runbook, nav="Runbook"),)
