"""Answers that are packed with gzip: large ones, for clients that read that."""

import gzip
from collections.abc import AsyncIterator

import asyncpg
import pytest

from birthday.http.headers import accepts_gzip
from birthday.http.middleware.packing import MIN_BYTES
from tests.support.api import Answer, Api, running_api

GZIP = {"Accept-Encoding": "br, gzip;q=0.5"}
PLAIN = {"Accept-Encoding": "identity"}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API with users enough for a long list."""
    async with running_api(pool) as api:
        for number in range(60):
            await api.create(email=f"{number}@example.com", firstName="Ada" * 30)
        yield api


async def fetch(api: Api, path: str, headers: dict[str, str], method: str = "GET") -> Answer:
    """Return an answer as it comes over the wire."""
    async with api.client.request(method, api.url + path, headers=headers, auto_decompress=False) as response:
        return Answer(response.status, response.headers, await response.read(), None)


@pytest.mark.parametrize("path", ["/users?limit=4", "/users?limit=500", "/openapi.json", "/metrics"])
async def test_large_answers_are_packed_for_who_reads_that(api: Api, path: str) -> None:
    """What is packed says so and unpacks to what others get; caches are told that there are two."""
    plain, packed = await fetch(api, path, PLAIN), await fetch(api, path, GZIP)
    assert (plain.status, packed.status) == (200, 200)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert len(packed.body) < len(plain.body) / 2
    # Metrics change from one request to the next.
    assert gzip.decompress(packed.body) == plain.body or path == "/metrics"
    head = await fetch(api, path, GZIP, "HEAD")
    assert head.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/csv"])
async def test_an_export_is_packed_while_it_is_written(api: Api, accept: str) -> None:
    """It unpacks to what others get; caches are told what the answer depends on, by HEAD too."""
    plain, packed = [await fetch(api, "/users/export", one | {"Accept": accept}) for one in (PLAIN, GZIP)]
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert len(packed.body) < len(plain.body) / 5
    head = await fetch(api, "/users/export", GZIP | {"Accept": accept}, "HEAD")
    for answer in (plain, packed, head):
        assert answer.headers["Vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize("path", ["/docs", "/docs/problems", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"])
async def test_the_files_of_the_documentation_are_kept_by_browsers(api: Api, path: str) -> None:
    """Packed or not, they have a tag to ask with whether they have changed: 304 if not."""
    plain, packed = await fetch(api, path, PLAIN), await fetch(api, path, GZIP)
    if "Content-Encoding" in packed.headers:
        assert gzip.decompress(packed.body) == plain.body
    assert ("Content-Encoding" in packed.headers) == (len(plain.body) >= MIN_BYTES)
    for answer, accepted in ((plain, PLAIN), (packed, GZIP)):
        again = await fetch(api, path, accepted | {"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")
        for one in (answer, again):
            assert (one.headers["Cache-Control"], one.headers["Vary"]) == ("no-cache", "Accept-Encoding")


async def test_a_packed_answer_has_a_weak_tag(api: Api) -> None:
    """Its bytes differ from those of the plain one. Either tag says that the list has not changed."""
    packed, plain = await fetch(api, "/users", GZIP), await fetch(api, "/users", PLAIN)
    assert packed.headers["ETag"] == f"W/{plain.headers['ETag']}"
    for tag in (packed.headers["ETag"], plain.headers["ETag"]):
        again = await fetch(api, "/users", GZIP | {"If-None-Match": tag})
        assert (again.status, again.body) == (304, b"")


async def test_small_answers_and_what_can_be_changed_are_not_packed(api: Api) -> None:
    """Packing a small answer saves no packet; the tag of a resource must stay strong, for If-Match."""
    user = await api.create(attributes={f"attribute{number}": "x" * 100 for number in range(18)})
    small = await fetch(api, "/suppressions", GZIP)
    large = await fetch(api, f"/users/{user['id']}", GZIP)
    assert len(small.body) < MIN_BYTES < len(large.body)
    for answer in (small, large, await fetch(api, "/alive", GZIP), await fetch(api, "/nowhere", GZIP)):
        assert "Content-Encoding" not in answer.headers
        assert "Vary" not in answer.headers
    assert not large.headers["ETag"].startswith("W/")


@pytest.mark.parametrize("accepted", ["gzip", "GZIP", "br, gzip", "gzip;q=0.001", "deflate ,gzip ; q=1.0, *;q=0"])
def test_gzip_is_accepted(accepted: str) -> None:
    """It is named, with any weight but 0."""
    assert accepts_gzip(accepted)


@pytest.mark.parametrize("accepted", ["", "identity", "br, deflate", "gzip;q=0", "gzip; q=0.000, br", "gzipped", "*"])
def test_gzip_is_not_accepted(accepted: str) -> None:
    """It is not named, or with the weight 0."""
    assert not accepts_gzip(accepted)
