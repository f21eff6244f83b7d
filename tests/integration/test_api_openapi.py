"""The OpenAPI document, checked against the running API, and the page that shows it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import date, timedelta
from pathlib import Path

import asyncpg
import jsonschema_rs
import pytest

from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


TEXTS_OF_TEMPLATES = """
[[operations]]
include-operation-id = ["publishTemplate", "previewTemplate", "testTemplate"]
checks.positive_data_acceptance.enabled = false
"""
"""No schema can say which texts are templates that say something."""


@pytest.mark.slow
async def test_the_api_does_what_the_document_says(api: Api, tmp_path: Path) -> None:
    """Generated requests, good and bad, get answers that the document describes, and never a failure."""
    await api.create(dateOfBirth="1990-03-01")
    (tmp_path / "schemathesis.toml").write_text(TEXTS_OF_TEMPLATES)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{api.url}/openapi.json",
        "--generation-deterministic",
        "--max-examples=10",
        "--no-color",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(240):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "29 selected / 29 total" in output.decode()


async def test_the_document_names_every_route(api: Api) -> None:
    """What can be asked is described, and nothing else."""
    document = (await api.get("/openapi.json")).json
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert {(path, method) for path, method in described if method != "PARAMETERS"} == {
        ("/users", "GET"),
        ("/users", "POST"),
        ("/users/{id}", "GET"),
        ("/users/{id}", "PUT"),
        ("/users/{id}", "PATCH"),
        ("/users/{id}", "DELETE"),
        ("/users/{id}/messages", "GET"),
        ("/users/{id}/explain", "GET"),
        ("/users/{id}/suppression", "PUT"),
        ("/users/{id}/suppression", "DELETE"),
        ("/suppressions", "GET"),
        ("/messages", "GET"),
        ("/messages/retry", "POST"),
        ("/messages/{id}", "GET"),
        ("/messages/{id}/retry", "POST"),
        ("/templates", "GET"),
        ("/templates/{type}/{locale}", "GET"),
        ("/templates/{type}/{locale}", "PUT"),
        ("/templates/{type}/{locale}/versions", "GET"),
        ("/templates/{type}/{locale}/preview", "POST"),
        ("/templates/{type}/{locale}/test", "POST"),
        ("/templates/{type}/{locale}/activate", "POST"),
        ("/health", "GET"),
        ("/health/detailed", "GET"),
        ("/health/db", "GET"),
        ("/health/queue", "GET"),
        ("/ready", "GET"),
        ("/alive", "GET"),
        ("/metrics", "GET"),
    }
    for path, method in described:
        if method != "PARAMETERS":
            assert (await api.request(method, path.replace("{id}", "1"))).status != 405


async def test_the_schema_of_a_user_takes_what_the_api_takes(api: Api) -> None:
    """The runbook's body and both forms of zone fit the schema; what the API refuses does not."""
    document = (await api.get("/openapi.json")).json
    schema = {"$ref": "#/components/schemas/Profile", "components": document["components"]}
    fits = jsonschema_rs.validator_for(schema).is_valid
    named = {name: value for name, value in RUNBOOK_USER.items() if name != "timezoneOffset"}
    assert fits(RUNBOOK_USER)
    assert fits(named | {"timezone": "America/Argentina/Ushuaia"})
    assert fits(named | {"timezone": None, "timezoneOffset": -210})
    for refused in (
        named,
        RUNBOOK_USER | {"timezone": "UTC"},
        RUNBOOK_USER | {"timezoneOffset": 7},
        RUNBOOK_USER | {"firstName": " "},
        RUNBOOK_USER | {"email": "ada"},
        RUNBOOK_USER | {"age": 36},
        named | {"timezone": "Mars"},
    ):
        assert not fits(refused)
        assert (await api.post("/users", refused)).status == 422


async def test_the_schema_knows_the_calendar(api: Api) -> None:
    """The pattern of dateOfBirth matches every date from 1900 to the end of last year, and no date that is none."""
    document = (await api.get("/openapi.json")).json
    pattern = re.compile(document["components"]["schemas"]["Profile"]["properties"]["dateOfBirth"]["pattern"])
    possible = {f"{year}-{month:02}-{day:02}" for year in range(1895, 2030) for month in range(14) for day in range(33)}
    first, last = date(1900, 1, 1), date(2025, 12, 31)
    real = {str(first + timedelta(days=number)) for number in range((last - first).days + 1)}
    assert {text for text in possible if pattern.search(text)} == real


async def test_keys_are_described_where_there_are_any(pool: asyncpg.Pool) -> None:
    """With API_KEYS the document says where a key goes, and that probes need none; without, nothing of the kind."""
    async with running_api(pool, api_keys=api_keys(ada="admin")) as api:
        document = (await api.get("/openapi.json")).json
        assert document["security"] == [{"bearer": []}, {"header": []}]
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        assert document["paths"]["/ready"]["get"]["security"] == []
    async with running_api(pool) as api:
        document = (await api.get("/openapi.json")).json
        assert "security" not in document
        assert "securitySchemes" not in document["components"]


async def test_the_page_needs_no_internet(api: Api) -> None:
    """Whatever /docs refers to is served by the API itself, and the policy forbids everything else."""
    page = await api.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    references = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(references) == 4
    for reference in references:
        assert reference.startswith("/docs/")
        answer = await api.get(reference)
        assert answer.status == 200
        assert answer.body
    start = (await api.get("/docs/start.js")).body.decode()
    assert "validatorUrl: null" in start
    assert "://" not in page.body.decode() + start


async def test_the_page_serves_its_own_files_only(api: Api) -> None:
    """Nothing but the few files that the page needs can be had from there."""
    for name in ("index.html", "swagger-ui.js", "..%2Fpyproject.toml", "%2Fetc%2Fpasswd", "oauth2-redirect.html"):
        assert (await api.get(f"/docs/{name}")).status == 404


async def test_the_page_reads_a_document_that_swagger_ui_knows(api: Api) -> None:
    """Swagger UI gets the same operations in OpenAPI 3.0, in which null is no type."""
    readable, document = (await api.get("/docs/openapi.json")).json, (await api.get("/openapi.json")).json
    assert readable["openapi"].startswith("3.0.")
    assert list(readable["paths"]) == list(document["paths"])
    user = readable["components"]["schemas"]["User"]["properties"]
    assert user["timezone"]["type"] == "string"
    assert user["timezone"]["nullable"] is True
    assert "null" not in set(_types(readable))


def _types(node: object) -> Iterator[object]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "type" and not isinstance(value, dict):
                yield from value if isinstance(value, list) else [value]
            yield from _types(value)
    elif isinstance(node, list):
        for item in node:
            yield from _types(item)
