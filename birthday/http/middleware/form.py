"""What every request has to be before anything of it is used, whatever it asks for."""

from aiohttp import hdrs, web

from birthday.http.context import OTHER_VERSION


def check_form(request: web.Request) -> None:
    """Make sure that a request is one that we understand, before anything of it is used.

    Bodies are taken as they are: a few bytes that unpack to very many would hold up everybody (RFC 9110, 15.5.16).

    Raises:
        HTTPUnsupportedMediaType: if its body is encoded.
        HTTPBadRequest: if its Host is none.
        HTTPVersionNotSupported: if it is of another version of HTTP.
    """
    if hdrs.CONTENT_ENCODING in request.headers:
        codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).split(",")
        if any(coding.strip().lower() not in {"", "identity"} for coding in codings):
            text = "a Content-Encoding is given; a body without any, or with identity, is accepted"
            raise web.HTTPUnsupportedMediaType(text=text, headers={hdrs.ACCEPT_ENCODING: "identity"})
    if not request.host.isascii():
        raise web.HTTPBadRequest(text="the Host has characters outside of ASCII")
    if OTHER_VERSION in request:
        raise web.HTTPVersionNotSupported(text="HTTP/1.0 and HTTP/1.1 are accepted")
