"""Requests that are wrong, from a seed: what attackers, broken clients and other protocols send to an HTTP port."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

CANARY = "c4n4ry"
"""Stands in every request wherever it has text of its own; no answer may repeat it."""

_USER = (
    b'{"firstName":"c4n4ry","lastName":"c4n4ry","email":"c4n4ry@example.com",'
    b'"dateOfBirth":"1990-01-01","timezoneOffset":0}'
)
_CONTROLS = [bytes([byte]) for byte in (*range(9), 11, 12, *range(14, 32), 127)]
_BAD_UTF8 = [b"\xff", b"\xc3\x28", b"\xa0", b"\xed\xa0\x80", b"\xf0\x28\x8c\xbc", b"\xc0\xaf", b"\xe9"]
_JSON_HEAD = b"Content-Type: application/json\r\n"


@dataclass(frozen=True, slots=True)
class Malformed:
    """One wrong request. ``kind`` names what is wrong, for the report of a failure."""

    kind: str
    parts: tuple[bytes, ...]
    """What is sent, piece by piece, with a turn of the event loop in between."""


def malformed_requests(seed: int, count: int) -> Iterator[Malformed]:
    """Yield ``count`` wrong requests, all kinds in turn."""
    random = Random(seed)  # noqa: S311 - reproducible, no secret
    makers = list(_MAKERS.items())
    for number in range(count):
        kind, make = makers[number % len(makers)]
        made = make(random)
        yield Malformed(kind, made if isinstance(made, tuple) else (made,))


def _request(
    method: bytes = b"GET",
    target: bytes = b"/users",
    version: bytes = b"HTTP/1.1",
    headers: bytes = b"",
    body: bytes = b"",
    host: bytes = b"Host: localhost\r\n",
) -> bytes:
    return method + b" " + target + b" " + version + b"\r\n" + host + headers + b"\r\n" + body


def _post(body: bytes, headers: bytes = _JSON_HEAD, target: bytes = b"/users") -> bytes:
    return _request(b"POST", target, headers=headers + b"Content-Length: %d\r\n" % len(body), body=body)


def _bad_method(random: Random) -> bytes:
    methods = [b"get", b"GE\xd0\xa2", b"G ET", b"", b"C4N4RY", b"GET\t", b"\x00GET", b"G\xffT", b"()", b"A" * 5000]
    return _request(random.choice(methods))


def _bad_version(random: Random) -> bytes:
    versions = [
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/3.0",
        b"HTTP/11",
        b"HTTP/1.1.1",
        b"http/1.1",
        b"HTTP/-1.1",
        b"HTTP/9.9",
    ]
    versions += [
        b"c4n4ry",
        b"HTTP/1,1",
        b"HTTP/1.",
        b"HTTP /1.1",
        b"HTTP/1.1 c4n4ry",
        b"HTTPS/1.1",
        b"HTTP/\xff.1",
        b"",
    ]
    return _request(version=random.choice(versions))


def _bad_target(random: Random) -> bytes:
    targets = [b"", b"*", b"c4n4ry", b"/\x00c4n4ry", b"//c4n4ry", b"http://", b"http://[c4n4ry/", b"/c4n4ry\xff"]
    targets += [
        b"/users/c4n4ry%00",
        b"/%ffc4n4ry",
        b"/c4n4ry%",
        b"/c4n4ry%zz",
        b"/../../c4n4ry",
        b"/users?limit=c4n4ry",
    ]
    targets += [b"/users?status=%ff", b"/messages?status=%ffc4n4ry", b"/messages?from=%00", b"/users?cursor=\xff"]
    targets += [b"/users?limit=1&limit=2", b"/users/<script>c4n4ry</script>", b"/#c4n4ry", b"/users/" + b"c4n4ry" * 900]
    targets += [
        b"http://c4n4ry.example/users",
        b"https://[::1/users",
        b"?c4n4ry",
        b"/messages/\xed\xa0\x80",
        b"/docs/c4n4ry",
    ]
    targets += [b"/c4n4ry" + random.choice(_CONTROLS), b"/c4n4ry" + random.choice(_BAD_UTF8)]
    return _request(random.choice([b"GET", b"DELETE", b"POST"]), random.choice(targets))


def _connect(random: Random) -> bytes:
    targets = [b"c4n4ry.example:443", b"/", b"c4n4ry", b":443", b"[::1", b"\xff:1", b"c4n4ry:99999999"]
    return _request(b"CONNECT", random.choice(targets))


def _bad_header(random: Random) -> bytes:
    control, wrong = random.choice(_CONTROLS), random.choice(_BAD_UTF8)
    headers = [
        b"c4n4ry\r\n",
        b": c4n4ry\r\n",
        b"X c4n4ry: x\r\n",
        b"X-A : c4n4ry\r\n",
        b"X-A: c4n4ry" + control + b"\r\n",
    ]
    headers += [b"X" + control + b": c4n4ry\r\n", b"X" + wrong + b": c4n4ry\r\n", b"X-A: c4n4ry\r\n folded c4n4ry\r\n"]
    headers += [b" X-A: c4n4ry\r\n", b"X-A: c4n4ry\rX-B: c4n4ry\r\n", b"X-A: c4n4ry\nX-B: x\r\n", b"(c4n4ry): x\r\n"]
    return _request(headers=random.choice(headers))


def _odd_value(random: Random) -> bytes:
    names = [b"Authorization: Bearer ", b"X-API-Key: ", b"X-Request-ID: ", b"Accept: ", b"traceparent: ", b"Cookie: "]
    names += [b"Content-Type: ", b"If-None-Match: ", b"Range: bytes=", b"Forwarded: for=", b"X-Forwarded-For: "]
    value = b"c4n4ry;" + random.choice(_BAD_UTF8) + b'"' * random.randrange(3)
    return _request(b"POST", headers=random.choice(names) + value + b"\r\nContent-Length: 0\r\n")


def _bad_host(random: Random) -> bytes:
    hosts = [
        b"",
        b"Host: c4n4ry\xff\r\n",
        b"Host: \xe9c4n4ry.example\r\n",
        b"Host: a\r\nHost: c4n4ry\r\n",
        b"Host: [c4n4ry\r\n",
    ]
    hosts += [b"Host: c4n4ry:99999\r\n", b"Host: c4n4ry/../x\r\n", b"Host: \x00c4n4ry\r\n", b"Host: c4n4ry.example\r\n"]
    hosts += [
        b"Host:\r\n",
        b"Host: <c4n4ry>\r\n",
        b"Host: localhost@c4n4ry\r\n",
        b"Host: " + random.choice(_BAD_UTF8) + b"\r\n",
    ]
    return _request(target=random.choice([b"/users", b"/messages", b"/users/c4n4ry"]), host=random.choice(hosts))


def _bad_length(random: Random) -> bytes:
    lengths = [
        b"-1",
        b"+5",
        b"0x10",
        b"c4n4ry",
        b"1, 2",
        b"1e3",
        b"\xff",
        b"99999999999999999999",
        b"",
        b"1 2",
        b"5;c4n4ry",
    ]
    header = b"Content-Length: " + random.choice(lengths) + b"\r\n"
    twice = [b"", b"", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"]
    return _request(b"POST", headers=_JSON_HEAD + header + random.choice(twice), body=b"{}c4n4ry")


def _too_large(random: Random) -> bytes:
    size = random.choice([70_000, 10_000_000, 2**40, 2**63])
    return _request(b"POST", headers=_JSON_HEAD + b"Content-Length: %d\r\n" % size, body=b"c4n4ry")


def _short_body(random: Random) -> bytes:
    target = random.choice([b"/users", b"/nowhere", b"/messages/retry"])
    method = random.choice([b"POST", b"PUT", b"GET"])
    return _request(method, target, headers=_JSON_HEAD + b"Content-Length: 500\r\n", body=b'{"c4n4ry":')


def _bad_coding(random: Random) -> bytes:
    codings = [
        b"c4n4ry",
        b"gzip, chunked, c4n4ry",
        b"chunked, chunked",
        b"identity",
        b"xchunked",
        b"chunked\x0b",
        b"\xff",
    ]
    body = b"2\r\n{}\r\n0\r\n\r\n"
    return _request(b"POST", headers=_JSON_HEAD + b"Transfer-Encoding: " + random.choice(codings) + b"\r\n", body=body)


def _bad_chunks(random: Random) -> tuple[bytes, ...]:
    chunks = [
        b"zz\r\nc4n4ry",
        b"-1\r\n{}",
        b"ffffffffffffffffff\r\n{}",
        b"2\r\n{}c4n4ry\r\n",
        b"2;c4n4ry\x00\r\n{}\r\n0\r\n\r\n",
    ]
    chunks += [
        b"2\n{}\n0\n\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nc4n4ry\r\n\r\n",
        b" 2\r\n{}\r\n",
        b"\xff\r\n",
        b"\r\n\r\n",
    ]
    head = _request(b"POST", headers=_JSON_HEAD + b"Transfer-Encoding: chunked\r\n")
    body = random.choice(chunks)
    return (head + body,) if random.random() < 0.5 else (head, body)


def _encoded(random: Random) -> bytes:
    bomb = gzip.compress(b" " * random.choice([100, 1_000_000]))
    coding, body = random.choice(
        [
            (b"gzip", bomb),
            (b"deflate", zlib.compress(b"c4n4ry")),
            (b"br", b"c4n4ry"),
            (b"zstd", b"c4n4ry"),
            (b"x-c4n4ry", b"{}"),
        ]
    )
    target = random.choice([b"/users", b"/nowhere", b"/alive", b"/messages/retry"])
    return _post(body, _JSON_HEAD + b"Content-Encoding: " + coding + b"\r\n", target)


def _huge_head(random: Random) -> bytes:
    heads = [b"X-A: " + b"c4n4ry" * 20_000 + b"\r\n", b"X-A: c4n4ry\r\n" * 500, b"c4n4ry" * 20_000 + b": x\r\n"]
    heads += [b"".join(b"X-%d: %s\r\n" % (number, b"c4n4ry" * 1000) for number in range(60))]
    return _request(headers=random.choice(heads), target=random.choice([b"/users", b"/" + b"c4n4ry" * 20_000]))


def _half_head(random: Random) -> bytes:
    whole = _request(headers=b"X-A: c4n4ry\r\n")
    return whole[: random.randrange(1, len(whole) - 2)]


def _obs_fold(random: Random) -> bytes:
    space = random.choice([b" ", b"\t", b"  \t "])
    return _request(headers=b"X-A: c4n4ry\r\n" + space + b"c4n4ry\r\n" + random.choice([b"", space + b"x\r\n"]))


def _line_ends(random: Random) -> bytes:
    end = random.choice([b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\x00", b"\x0b\r\n", b"\x85"])
    return _request(headers=b"X-A: c4n4ry\r\n").replace(b"\r\n", end)


def _expectation(random: Random) -> bytes:
    expected = random.choice([b"c4n4ry", b"200-ok", b"100-continue, c4n4ry", b"\xff"])
    target = random.choice([b"/users", b"/nowhere"])
    return _request(b"POST", target, headers=b"Expect: " + expected + b"\r\nContent-Length: 0\r\n")


def _upgrade(random: Random) -> bytes:
    to = random.choice([b"websocket", b"h2c", b"c4n4ry", b"TLS/1.0", b"\xff"])
    return _request(
        target=b"/nowhere", headers=b"Connection: Upgrade\r\nUpgrade: " + to + b"\r\n", body=b"\x81\x05c4n4r"
    )


def _other_protocol(random: Random) -> bytes:
    return random.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03c4n4ry" + bytes(200),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-c4n4ry\r\n",
            b"*1\r\n$6\r\nc4n4ry\r\n",
            b"AMQP\x00\x00\x09\x01",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"EHLO c4n4ry\r\n\r\n",
            b"GET /c4n4ry\r\n\r\n",
            b"\x05\x01\x00",
            random.randbytes(300),
        ]
    )


def _bad_json(random: Random) -> bytes:
    bodies = [
        b"",
        b"c4n4ry",
        b"{",
        b"{]",
        b'{"c4n4ry"}',
        b"NaN",
        b"Infinity",
        b"1e999999",
        b"'c4n4ry'",
        b"[1,]",
        b"\xef\xbb\xbf{}",
    ]
    bodies += [
        b'"\\ud800c4n4ry"',
        b'{"c4n4ry":\x00}',
        b'"c4n4ry' + random.choice(_BAD_UTF8) + b'"',
        _USER[:-1],
        _USER + _USER,
    ]
    bodies += [b"-", b"01", b'"\\x"', b'"c4n4ry\n"', b"\xff\xfe{\x00}\x00", b"nul", b"{}c4n4ry"]
    return _post(random.choice(bodies))


def _deep_json(random: Random) -> bytes:
    depth = random.choice([65, 100, 500, 980, 990, 1000, 1010, 1020, 1023, 1024, 1025, 5000, 30_000])
    opening, closing = random.choice([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
    depth = depth if len(opening) == 1 else min(depth, 9000) // 2
    value = opening * depth + b"1" + closing * random.choice([depth, depth, 0])
    wrapped = random.choice([value, b'{"firstName":' + value + b"}", b'{"email":' + value + b"}"])
    target = random.choice([b"/users", b"/users", b"/messages/retry"])
    return _post(wrapped[:64_000], target=target)


def _wrong_types(random: Random) -> bytes:
    values = [
        b"null",
        b"true",
        b"1",
        b"-1e308",
        b"[]",
        b"{}",
        b'""',
        b'"\\u0000"',
        b"18446744073709551616",
        b"[[[]]]",
        b'" "',
    ]
    name = random.choice([b"firstName", b"lastName", b"email", b"dateOfBirth"])
    body = random.choice(
        [
            _USER.replace(b'"%s":' % name, b'"%s":%s,"x":' % (name, random.choice(values))),
            random.choice(values),
            b"[" + _USER + b"]",
            b'{"errorType":%s}' % random.choice(values),
        ]
    )
    return _post(body, target=random.choice([b"/users", b"/messages/retry"]))


def _bad_type(random: Random) -> bytes:
    types = [
        b"text/plain",
        b"application/x-www-form-urlencoded",
        b"c4n4ry",
        b"application/json; charset=c4n4ry",
        b"",
        b"\xff",
    ]
    types += [b"multipart/form-data; boundary=c4n4ry", b"application/json; charset=utf-16", b'a/b; x="']
    return _post(_USER, b"Content-Type: " + random.choice(types) + b"\r\n")


def _impossible(random: Random) -> bytes:
    method = random.choice([b"PATCH", b"PROPFIND", b"TRACE", b"OPTIONS", b"PURGE", b"M-SEARCH", b"SOURCE", b"QUERY"])
    return _request(method, random.choice([b"/users", b"/metrics", b"/c4n4ry", b"*", b"/messages/retry"]))


def _mutated(random: Random) -> bytes:
    """Return a request that would be fine but for a few bytes that were exchanged, removed or repeated."""
    wrong = bytearray(_post(_USER, _JSON_HEAD + b"X-A: c4n4ry\r\n"))
    for _ in range(random.randrange(1, 5)):
        where = random.randrange(len(wrong))
        match random.randrange(3):
            case 0:
                wrong[where] = random.randrange(256)
            case 1:
                del wrong[where]
            case _:
                wrong[where:where] = bytes([random.randrange(256)]) * random.randrange(1, 4)
    # Whatever became of the rest, the first byte is no method's.
    return b"\x7f" + bytes(wrong) if random.random() < 0.2 else bytes(wrong).replace(b"POST", b"POTS", 1)


_MAKERS: dict[str, Callable[[Random], bytes | tuple[bytes, ...]]] = {
    "method": _bad_method,
    "version": _bad_version,
    "target": _bad_target,
    "CONNECT": _connect,
    "header": _bad_header,
    "value of a header": _odd_value,
    "Host": _bad_host,
    "Content-Length": _bad_length,
    "too large a body": _too_large,
    "half a body": _short_body,
    "Transfer-Encoding": _bad_coding,
    "chunks": _bad_chunks,
    "Content-Encoding": _encoded,
    "huge head": _huge_head,
    "half a head": _half_head,
    "folded header": _obs_fold,
    "line ends": _line_ends,
    "Expect": _expectation,
    "Upgrade": _upgrade,
    "another protocol": _other_protocol,
    "JSON": _bad_json,
    "deep JSON": _deep_json,
    "types of members": _wrong_types,
    "Content-Type": _bad_type,
    "no such method here": _impossible,
    "mutated": _mutated,
}
