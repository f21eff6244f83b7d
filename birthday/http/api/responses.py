"""Pages of lists."""

from aiohttp import hdrs, web

from birthday.http.json_response import json_response


def page_response(request: web.Request, page: object, next_cursor: str | None) -> web.Response:
    """Return a page of a list; ``Link`` is the same request for the next one (RFC 8288)."""
    response = json_response(page)
    if next_cursor is not None:
        response.headers[hdrs.LINK] = f'<{request.rel_url.update_query(cursor=next_cursor)}>; rel="next"'
    return response
