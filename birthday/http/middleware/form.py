"""Checks the head of every request before it is handled."""

from typing import Any

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web


def fault_of(message: Any) -> web.HTTPException | None:  # noqa: ANN401 - its type is private to aiohttp
    """Return the error that answers a request whose head we do not accept; None if we accept it.

    Compressed bodies are refused, because a few bytes may unpack to very many and hold up all clients (RFC 9110,
    15.5.16).
    """
    headers = message.headers
    if hdrs.CONTENT_ENCODING in headers:
        codings = ",".join(headers.getall(hdrs.CONTENT_ENCODING)).lower().split(",")
        if any(coding.strip() not in {"", "identity"} for coding in codings):
            text = "a Content-Encoding is given; a body without any, or with identity, is accepted"
            return web.HTTPUnsupportedMediaType(text=text, headers={hdrs.ACCEPT_ENCODING: "identity"})
    if not headers.get(hdrs.HOST, "").isascii():
        return web.HTTPBadRequest(text="the Host has characters outside of ASCII")
    if hdrs.EXPECT in headers and headers[hdrs.EXPECT].lower() != "100-continue":
        return web.HTTPExpectationFailed(text="an Expect is given; 100-continue is accepted")
    version = message.version
    if version is not HttpVersion11 and version is not HttpVersion10:
        return web.HTTPVersionNotSupported(text="HTTP/1.0 and HTTP/1.1 are accepted")
    return None
