"""Pages of lists."""

from collections.abc import Sequence

from aiohttp import hdrs, web

from birthday.http.json_response import json_response


def page_response(
    request: web.Request, page: object, next_cursor: str | None, without: Sequence[str] = ()
) -> web.Response:
    """Return a page of a list; ``Link`` is the same request for the next one (RFC 8288), ``without`` some parameters.

    URLs are in logs, so those that we make hold nothing personal.
    """
    response = json_response(page)
    if next_cursor is not None:
        url = request.rel_url.without_query_params(*without).update_query(cursor=next_cursor)
        response.headers[hdrs.LINK] = f'<{url}>; rel="next"'
    return response
