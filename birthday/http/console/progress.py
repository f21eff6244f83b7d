"""Pages that are sent in pieces while a long change is made: no script, and no state in the server in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import urlencode

from aiohttp import web
from markupsafe import Markup

from birthday.errors import BirthdayError
from birthday.http.console.rendering import DONE, HEADERS, NOTICE, explain, render
from birthday.http.console.view import CONSOLE, ROOT
from birthday.http.streaming import ClientError, Stream

_Result = TypeVar("_Result")

_EVERY_SECONDS: Final = 0.5
_HERE: Final = "<!--progress-->"
"""Where the template is cut: what has happened so far goes in between."""
_RESULT: Final = "<!--result-->"
"""Where the template has the result, if there is more than a line to show."""
_STEP: Final = Markup("<li>{}</li>\n")
_DONE: Final = Markup(
    '<li>{text}</li>\n<meta http-equiv="refresh" content="0;url={to}"><li><a href="{to}">{text}</a></li>'
)


class Report:
    """Tells the browser how far a change has come: ``await report(text)``, at last ``await report.done(...)``."""

    def __init__(self, request: web.Request, stream: Stream) -> None:
        self._request = request
        self._stream = stream
        self.answer: web.StreamResponse = stream.answer
        """What the handler returns after the context."""
        self.result = ""
        """What is shown below at the end: HTML, as a template has rendered it."""

    async def __call__(self, text: str) -> None:
        """Show how far it has come, in place of what was shown before.

        Raises:
            ClientError: if the page was closed.
        """
        await self._stream.write(_STEP.format(text).encode())

    async def done(self, location: str, text: str) -> None:
        """Show the result, and let the browser open ``location``, a page that tells it too."""
        token = self._request.app[CONSOLE].tokens.make(NOTICE, text)
        to = f"{location}{'&' if '?' in location else '?'}{urlencode({DONE: token})}"
        await self._stream.write(_DONE.format(text=text, to=to).encode())


async def follow(report: Report, work: Awaitable[_Result], say: Callable[[], str]) -> _Result:
    """Do ``work``, report twice a second what ``say`` returns, and return the result.

    If the page is closed, the work is cancelled.

    Raises:
        ClientError: if the page was closed.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await report(say())
            await asyncio.wait({task}, timeout=_EVERY_SECONDS)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def progress(
    request: web.Request, title: str, back: str = ROOT, template: str = "progress.html", **values: object
) -> AsyncIterator[Report]:
    """Send a page that shows what is reported within the context; ``back`` is where it leads if that fails.

    ``template`` is rendered with ``values``, and has the marks of ``progress.html``.

    If the page is closed, the next report ends the context, so each step must leave whole rows.
    """
    before, after = render(request, template, title=title, back=back, **values).split(_HERE)
    async with Stream(request, "text/html; charset=utf-8", HEADERS) as stream:
        report = Report(request, stream)
        try:
            await stream.write(before.encode())
            try:
                yield report
            except BirthdayError as error:
                await report(f"It stopped: {explain(error)}")
            await stream.write(after.replace(_RESULT, report.result).encode())
            await stream.end()
        except ClientError:
            stream.break_off()
