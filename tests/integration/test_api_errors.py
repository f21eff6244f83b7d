"""What goes wrong over HTTP: always problem+json, with every field that is wrong."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog

from birthday.http.api.requests import MAX_BODY_BYTES
from tests.support.api import RUNBOOK_USER, Answer, Api, running_api

JSON = {"Content-Type": "application/json"}
UNKNOWN = "01234567-89ab-7def-8123-456789abcdef"


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


def assert_problem(answer: Answer, status: int) -> None:
    """Make sure that an answer is a problem document of this status."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(answer.json) - {"errors"} == {"type", "title", "status", "detail", "code", "requestId"}
    assert answer.json["status"] == status
    assert answer.json["type"] == f"/docs/problems#{answer.json['code']}"
    assert answer.json["requestId"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        ({"firstName": None}, "/firstName", "null is not text"),
        ({"firstName": "  "}, "/firstName", "empty"),
        ({"lastName": "x" * 101}, "/lastName", "100"),
        ({"lastName": "Love\nlace"}, "/lastName", "control characters"),
        ({"lastName": "Love\u0000lace"}, "/lastName", "control characters"),
        ({"firstName": "\u3164"}, "/firstName", "is not a name: nothing of it can be seen"),
        ({"lastName": "\u200b"}, "/lastName", "text with a visible character is accepted"),
        ({"lastName": "evil\u202egnp.exe"}, "/lastName", "U+202E is in it"),
        ({"email": "ad\u200ba@example.com"}, "/email", "is not an e-mail address: U+200B"),
        ({"email": "mailto:ada@example.com"}, "/email", "':' may not stand before the @"),
        ({"email": f"ada@{'x' * 64}.com"}, "/email", "cannot be in DNS: Label too long"),
        ({"email": "ada"}, "/email", "ada@example.com"),
        ({"email": "ada@example.com\r\nBcc: x@example.com"}, "/email", "ada@example.com"),
        ({"email": f"ada@{'x' * 260}.com"}, "/email", "254"),
        ({"dateOfBirth": "1990-02-30"}, "/dateOfBirth", "not a date of the calendar"),
        ({"dateOfBirth": "01/02/1990"}, "/dateOfBirth", "YYYY-MM-DD"),
        ({"dateOfBirth": "1990-01-01T25:00:00Z"}, "/dateOfBirth", "YYYY-MM-DD"),
        ({"dateOfBirth": 631152000}, "/dateOfBirth", "YYYY-MM-DD"),
        ({"dateOfBirth": "2026-03-02"}, "/dateOfBirth", "1900-01-01 to today"),
        ({"dateOfBirth": "1899-12-31"}, "/dateOfBirth", "1900-01-01 to today"),
        ({"timezoneOffset": 7}, "/timezoneOffset", "minutes east of UTC, from -720 to 840: 420 is UTC+07:00"),
        ({"timezoneOffset": 420.5}, "/timezoneOffset", "whole number"),
        ({"timezoneOffset": "420"}, "/timezoneOffset", "whole number"),
        ({"timezoneOffset": True}, "/timezoneOffset", "whole number"),
        ({"timezoneOffset": None}, "", "exactly one of timezone and timezoneOffset"),
        ({"timezone": "UTC"}, "", "exactly one of timezone and timezoneOffset"),
        ({"timezoneOffset": None, "timezone": "Europe/Berlim"}, "/timezone", "did you mean Europe/Berlin"),
        ({"timezoneOffset": None, "timezone": "../../etc/passwd"}, "/timezone", "not a time zone"),
        ({"timezoneOffset": None, "timezone": "x" * 5000}, "/timezone", "64"),
        ({"age": 36}, "/age", "accepted are firstName"),
        ({"a/b~c": 1}, "/a~1b~0c", "not a field"),
    ],
)
async def test_a_field_that_is_wrong_is_named(api: Api, changes: dict[str, Any], pointer: str, detail: str) -> None:
    """A wrong member is 422 with its JSON pointer and what is accepted, and nobody is created."""
    answer = await api.post("/users", json=RUNBOOK_USER | changes)
    assert_problem(answer, 422)
    assert answer.pointers == [pointer]
    assert detail in answer.json["errors"][0]["detail"]
    assert len(answer.json["errors"][0]["detail"]) < 400
    assert (await api.get("/users")).json["users"] == []


async def test_every_field_that_is_wrong_is_named_at_once(api: Api) -> None:
    """Nobody has to correct a body field by field; there is a limit to what is listed."""
    answer = await api.post("/users", json={"firstName": 1, "email": "ada", "dateOfBirth": "x", "timezone": "Mars"})
    assert answer.pointers == ["/firstName", "/email", "/dateOfBirth", "/timezone"]
    for path, count in (("/users", 90), ("/keys", 3000)):
        many = await api.post(path, json={f"field{number}": 0 for number in range(count)})
        assert_problem(many, 422)
        assert len(many.pointers) == 50
        assert many.json["errors"][-1] == {"pointer": "", "detail": many.json["detail"].rpartition("; ")[2]}
        assert len(many.body) < 25_000
    many = await api.post("/users", json={f"field{number}": 0 for number in range(3000)})
    assert many.json["detail"] == "has 3,000 members; at most 100 are accepted"


@pytest.mark.parametrize("body", [[], "text", 1, True, [RUNBOOK_USER]])
async def test_a_body_must_be_an_object(api: Api, body: object) -> None:
    """JSON that is not an object is 422 for every method that takes a body."""
    user = await api.create()
    for method, path in (("POST", "/users"), ("PUT", f"/users/{user['id']}"), ("PATCH", f"/users/{user['id']}")):
        answer = await api.request(method, path, json=body)
        assert_problem(answer, 422)
        assert "object" in answer.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"firstName": "Ada",}',
        b'{"timezoneOffset": NaN}',
        b'{"timezoneOffset": 1e999}',
        b'{"firstName": "\xff"}',
        b'{"firstName": "\\ud800"}',
        b"[" * 60_000,
        '{"firstName": "Ada"}'.encode("utf-16"),
    ],
)
async def test_what_is_not_json_is_refused(api: Api, body: bytes) -> None:
    """Malformed JSON, NaN, other encodings and depths beyond reason are 400."""
    answer = await api.request("POST", "/users", data=body, headers=JSON)
    assert_problem(answer, 400)
    assert "not JSON" in answer.json["detail"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/xml",
        "nonsense",
    ],
)
async def test_what_is_not_said_to_be_json_is_refused(api: Api, content_type: str) -> None:
    """Any other media type is 415 that names the one accepted; so a form of a web page cannot create users."""
    answer = await api.request("POST", "/users", data=b"{}", headers={"Content-Type": content_type})
    assert_problem(answer, 415)
    assert "application/json" in answer.json["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "APPLICATION/JSON"])
async def test_json_may_be_written_in_any_usual_way(api: Api, content_type: str) -> None:
    """Parameters and case of the media type do not matter."""
    answer = await api.request("PUT", f"/users/{UNKNOWN}", data=b"{}", headers={"Content-Type": content_type})
    assert_problem(answer, 404)


async def test_a_body_that_says_that_it_is_too_large_is_not_read(api: Api) -> None:
    """10 MB announced by Content-Length are 413 before any of it is sent."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST /users HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 10000000\r\n\r\n".encode())
    async with asyncio.timeout(60):
        assert b" 413 " in await reader.readline()
        assert b"application/problem+json" in await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def test_a_body_that_turns_out_too_large_is_refused(api: Api) -> None:
    """10 MB in chunks are 413 as well, and the server goes on."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    async with api.client.post(f"{api.url}/users", data=chunks(), headers=JSON) as response:
        assert response.status == 413
        assert str(MAX_BODY_BYTES) in (await response.json(content_type=None))["detail"]
    await api.create()


@pytest.mark.parametrize("path", ["/users", "/messages/retry", "/nowhere", "/alive"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "x-unknown"])
async def test_an_encoded_body_is_refused_without_a_look_at_it(api: Api, path: str, coding: str) -> None:
    """A few bytes may unpack to very many: nothing is inflated, whatever is asked for, and the answer says why."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Encoding: {coding}\r\nContent-Length: 60000\r\n\r\n".encode())
    async with asyncio.timeout(60):
        # None of the body has been sent.
        assert b" 415 " in await reader.readline()
        headers = await reader.readuntil(b"\r\n\r\n")
    assert b"application/problem+json" in headers
    assert b"Accept-Encoding: identity" in headers
    writer.close()


async def test_gzip_bombs_hold_nobody_up(api: Api) -> None:
    """Twenty bodies that would unpack to 60 MB each are refused at once, and the event loop is free meanwhile."""
    packed = gzip.compress(b" " * 60_000_000)
    headers = JSON | {"Content-Encoding": "gzip"}
    async with asyncio.timeout(60):
        bombs = await asyncio.gather(
            *(api.request("POST", "/users", data=packed, headers=headers) for _ in range(20)), return_exceptions=True
        )
        assert (await api.get("/alive")).status == 200
    assert {bomb.status for bomb in bombs if isinstance(bomb, Answer)} == {415}


@pytest.mark.parametrize("coding", ["identity", "Identity", "identity, identity"])
async def test_identity_is_no_encoding(api: Api, coding: str) -> None:
    """A body that says that it is as it is, is taken."""
    answer = await api.post("/users", RUNBOOK_USER, headers={"Content-Encoding": coding})
    assert answer.status == 201, answer.body


@pytest.mark.parametrize("depth", [65, 500, *range(975, 1030, 5), 9000])
@pytest.mark.parametrize("wrapped", ["%s", '{"firstName": %s}', '{"unknown": %s}'])
async def test_json_that_is_nested_too_deep_is_refused(api: Api, depth: int, wrapped: str) -> None:
    """Whatever recursion could not bear is 400 before anything looks into it."""
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        body = (wrapped % (opening * depth + "1" + closing * depth)).encode()
        assert_problem(await api.request("POST", "/users", data=body, headers=JSON), 400)


async def test_brackets_alone_are_not_depth(api: Api) -> None:
    """Text with many brackets, or many short arrays, is no deep document."""
    user = await api.create(firstName="[{" * 40)
    assert user["firstName"] == "[{" * 40
    assert_problem(await api.post("/users", [[]] * 100), 422)


@pytest.mark.parametrize("host", [b"caf\xe9.example", b"caf\xc3\xa9.example", b"\xff"])
@pytest.mark.parametrize("path", ["/users", "/alive", "/nowhere"])
async def test_a_host_of_other_than_ascii_is_refused(api: Api, host: bytes, path: str) -> None:
    """Its bytes are no name that DNS or a URL could have."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert host not in answer


async def test_a_body_that_turns_out_malformed_is_refused_at_once(api: Api) -> None:
    """A chunk that is none, long after the head, does not leave the request waiting for a body that never comes."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    head = f"POST /users HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    async with asyncio.timeout(60):
        while api.metric("api_active_requests") < 1:
            await asyncio.sleep(0)
        writer.write(b"zz\r\n")
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /alive HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET /alive HTTP/1.1\r\nHost: loc", b"400"),
        (
            b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
            b"400",
        ),
    ],
)
async def test_a_client_that_says_no_more_is_still_answered(api: Api, request_bytes: bytes, status: bytes) -> None:
    """``printf ... | nc -N`` closes its half of the connection after the request, whole or not."""
    url = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request_bytes)
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"X-Request-ID: " in answer


async def test_every_answer_has_the_headers_that_protect_it(api: Api) -> None:
    """None is guessed at, none may run or be framed, and none says what exactly the server is.

    None is kept, but for the files of the documentation, which hold nobody's data.
    """
    await api.create()
    for path in ("/alive", "/users", "/nowhere", "/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
        headers = (await api.get(path)).headers
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in headers["Content-Security-Policy"] or path == "/docs"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/docs") else "no-store")
        assert headers["Server"] == "birthday"


@pytest.mark.parametrize(("field", "code"), [("email", "email_taken"), ("externalId", "external_id_taken")])
async def test_a_conflict_names_who_has_the_value(api: Api, field: str, code: str) -> None:
    """A client that finds its user there already can go on with its id."""
    user = await api.create(email="ada@example.com", externalId="crm-1")
    other = await api.create(email="grace@example.com")
    taken = {field: user[field].upper() if field == "email" else user[field]}
    for answer in (
        await api.post("/users", RUNBOOK_USER | taken),
        await api.patch(f"/users/{other['id']}", taken),
    ):
        assert answer.status == 409
        assert (answer.json["code"], answer.json["existingId"]) == (code, user["id"])
        assert answer.json["errors"][0]["pointer"] == f"/{field}"


async def test_an_unknown_path_is_not_found(api: Api) -> None:
    """What is not there is a problem document, too."""
    for path in ("/user", "/users/", f"/users/{UNKNOWN}/greetings", "/%00", "/docs/../../etc/passwd"):
        assert_problem(await api.get(path), 404)


async def test_an_id_that_is_none_is_not_found(api: Api) -> None:
    """Text that is not a UUID as the API writes it names nobody."""
    for text in ("1", "abc", UNKNOWN.replace("-", ""), f"urn:uuid:{UNKNOWN}", "%00", UNKNOWN + "0"):
        assert_problem(await api.get(f"/users/{text}"), 404)
    assert_problem(await api.get(f"/users/{UNKNOWN}"), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/users", {"GET", "HEAD", "POST"}),
        ("POST", f"/users/{UNKNOWN}", {"DELETE", "GET", "HEAD", "PATCH", "PUT"}),
        ("GET", f"/messages/{UNKNOWN}/retry", {"POST"}),
        ("OPTIONS", "/users", {"GET", "HEAD", "POST"}),
        ("PROPFIND", "/users", {"GET", "HEAD", "POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_is_not_possible_names_those_that_are(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    """A wrong method is 405 with Allow."""
    answer = await api.request(method, path)
    assert_problem(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


async def test_a_body_that_breaks_off_harms_nobody(api: Api) -> None:
    """A client that goes away in the middle of its body, or sends a broken one, costs nothing but that request."""
    url = urlsplit(api.url)
    start = f"POST /users HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
    for rest in ("Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\nzz\r\n"):
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write((start + rest).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await api.create()


@pytest.mark.parametrize(
    "nonsense",
    [b"nonsense\r\n\r\n", b"\x16\x03\x01 a client that speaks TLS\r\n\r\n", b"GET /users HTTP/1.1\r\nx y: z\r\n\r\n"],
)
async def test_what_is_no_http_is_counted_and_logged(api: Api, nonsense: bytes) -> None:
    """The parser refuses it before any of our code sees it; operators see that somebody asks in a wrong way."""
    url = urlsplit(api.url)
    with structlog.testing.capture_logs() as events:
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(nonsense)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert b"application/problem+json" in answer
        assert b"X-Request-ID: " in answer
        writer.close()
        await writer.wait_closed()
        await api.get("/users/1")
    assert api.metric("api_requests_total", method="OTHER", path="unknown", status="400") == 1
    assert api.metric("api_requests_total", method="GET", path="/users/{id}", status="404") == 1
    lines = [event for event in events if event["event"] == "http.request"]
    assert [(line["path"], line["status"], line["log_level"]) for line in lines] == [
        ("unknown", 400, "info"),
        ("/users/{id}", 404, "info"),
    ]
    assert lines[0]["reason"]
    assert lines[0]["client"] == "127.0.0.1"


async def test_a_mistake_of_ours_tells_nothing_of_the_inside(api: Api, pool: asyncpg.Pool) -> None:
    """What nobody foresaw is a problem document with status 500 that names no table, file or statement."""
    await pool.execute("ALTER TABLE users RENAME COLUMN first_name TO given_name")
    answer = await api.get("/users")
    assert_problem(answer, 500)
    assert b"first_name" not in answer.body
    assert "X-Request-ID" in answer.json["detail"]
    assert answer.headers["X-Request-ID"]


async def test_an_unknown_parameter_is_refused_everywhere(api: Api) -> None:
    """Whoever misspells a parameter is told so, also where none is known; probes take what scrapers add."""
    user = f"/users/{(await api.create())['id']}"
    for method, path in (("GET", user), ("DELETE", user), ("POST", f"{user}/erase"), ("GET", f"{user}/data")):
        refused = await api.request(method, f"{path}?dryrun=true&x=")
        assert_problem(refused, 422)
        assert (refused.json["code"], refused.pointers) == ("invalid_parameter", ["dryrun", "x"])
        assert "none is accepted" in refused.json["detail"]
    assert (await api.get(f"{user}?")).status == 200
    assert (await api.get("/alive?from=balancer")).status == 200


async def test_a_patch_may_say_that_it_is_a_merge_patch(api: Api) -> None:
    """PATCH is RFC 7396, so its media type is accepted beside JSON; elsewhere it is not."""
    path = f"/users/{(await api.create(locale='pt'))['id']}"
    merge = {"Content-Type": "application/merge-patch+json"}
    patched = await api.request("PATCH", path, data=b'{"locale": null, "firstName": "Ada"}', headers=merge)
    assert (patched.status, patched.json["locale"], patched.json["firstName"]) == (200, None, "Ada")
    refused = await api.request("PATCH", path, data=b"{}", headers={"Content-Type": "text/plain"})
    assert_problem(refused, 415)
    assert "application/json or application/merge-patch+json in UTF-8" in refused.json["detail"]
    assert_problem(await api.request("PUT", path, data=b"{}", headers=merge), 415)


CANARY = "zaphod"


@pytest.mark.parametrize(
    "changes",
    [
        {"firstName": [CANARY]},
        {"firstName": f"{CANARY}\n!"},
        {"lastName": CANARY * 100},
        {"email": f"{CANARY} at example.com"},
        {"email": f"ford@{CANARY}\u2764.com"},
        {"dateOfBirth": CANARY},
        {"externalId": f"{CANARY}\u200b"},
        {"attributes": [CANARY]},
        {"anniversaries": {"wedding": CANARY}},
        {"email": f"{CANARY}@example.com"},
        {"externalId": CANARY},
    ],
)
async def test_no_error_repeats_what_is_personal(api: Api, changes: dict[str, Any]) -> None:
    """An error names the field and what is accepted: errors are logged and shown where personal data must not be."""
    await api.create(email=f"{CANARY}@example.com", externalId=CANARY)
    refused = await api.post("/users", RUNBOOK_USER | changes)
    assert refused.status in {409, 422}
    assert refused.pointers[0].split("/")[1] in changes
    assert CANARY not in refused.body.decode()


@pytest.mark.parametrize(
    ("body", "detail"),
    [(b"[" * 200, "at most 64 levels"), (b"", "it is empty"), (b'{"a":1,}', "trailing comma")],
)
async def test_what_is_not_json_is_told_why(api: Api, body: bytes, detail: str) -> None:
    """Also if the parser would give up first."""
    answer = await api.request("POST", "/users", data=body, headers=JSON)
    assert_problem(answer, 400)
    assert detail in answer.json["detail"]


async def test_texts_say_what_is_accepted(api: Api) -> None:
    """A day that does not exist is told what a day looks like; who is not there is not told of addresses."""
    assert "MM-DD or --MM-DD" in (await api.get("/users?birthday=13-01")).json["detail"]
    assert (await api.get(f"/users/{UNKNOWN}/explain")).json["detail"] == f"there is no user {UNKNOWN}"
