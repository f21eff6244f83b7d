"""The OpenAPI document, checked against the running API, and the page that shows it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import jsonschema_rs
import orjson
import pytest
from pydantic.alias_generators import to_camel

from birthday.core.user import EXAMPLE, FIELDS, READ_ONLY
from birthday.http.api.user_models import User
from tests.support.api import RUNBOOK_USER, Api, api_keys, running_api

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    """The API on a database of its own; it is 09:00 UTC on 1 March 2026."""
    async with running_api(pool) as api:
        yield api


@pytest.mark.slow
async def test_the_api_does_what_the_document_says(api: Api, tmp_path: Path) -> None:
    """Generated requests, good and bad, get answers that the document describes, and never a failure."""
    await api.create(dateOfBirth="1990-03-01")
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        f"--config-file={ROOT / 'schemathesis.toml'}",
        "run",
        f"{api.url}/openapi.json",
        "--checks=all",
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
    paths = (await api.get("/openapi.json")).json["paths"]
    count = sum(len(item) for item in paths.values())
    assert f"{count} selected / {count} total" in output.decode()


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
        *(("/users/by-external-id/{externalId}", method) for method in ("GET", "PUT", "PATCH", "DELETE")),
        ("/users/import", "POST"),
        ("/users/export", "GET"),
        ("/occasions", "GET"),
        ("/users/{id}/messages", "GET"),
        ("/users/{id}/explain", "GET"),
        ("/users/{id}/data", "GET"),
        ("/users/{id}/erase", "POST"),
        ("/changes", "GET"),
        ("/users/{id}/suppression", "PUT"),
        ("/users/{id}/suppression", "DELETE"),
        ("/suppressions", "GET"),
        ("/messages", "GET"),
        ("/messages/retry", "POST"),
        ("/messages/{id}", "GET"),
        ("/messages/{id}/retry", "POST"),
        ("/keys", "GET"),
        ("/keys", "POST"),
        ("/keys/{keyId}", "DELETE"),
        ("/keys/{keyId}/rotate", "POST"),
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


WITHOUT_KEYS = {"importUsers"}
"""POSTs that are safe to repeat without an Idempotency-Key."""
WITHOUT_TAGS = {"exportUsers"}
"""Reads whose answer is a stream."""


async def test_every_post_takes_an_idempotency_key_and_every_read_has_a_tag(api: Api) -> None:
    """A client can see what it may repeat, where a tag comes from, and that lists link to their next page."""
    document = (await api.get("/openapi.json")).json
    for item in document["paths"].values():
        for method, operation in item.items():
            taken = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
            asked = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
            answers = operation["responses"]
            given = [set(one.get("headers", {})) for status, one in answers.items() if status.startswith("2")]
            if method == "post" and operation["operationId"] not in WITHOUT_KEYS:
                assert "Idempotency-Key" in taken
                assert "Idempotent-Replayed" in given[0]
                assert {"400", "409", "410", "422"} <= set(answers)
            if method == "get" and operation["tags"] != ["Probes"] and operation["operationId"] not in WITHOUT_TAGS:
                assert ("If-None-Match" in taken, "304" in answers, "ETag" in given[0]) == (True, True, True)
                assert ("cursor" in asked) == ("Link" in given[0])
            assert ("If-Match" in taken) == ("412" in answers)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"timezoneOffset": None, "timezone": "America/Argentina/Ushuaia"},
        {"timezoneOffset": None, "timezone": "UTC+07:00"},
        {"timezoneOffset": -210, "timezone": None},
        {"dateOfBirth": "2026-03-01"},
        {"dateOfBirth": "--02-29"},
        {"dateOfBirth": "1990-01-01T23:30:00.5+07:00"},
        {"email": "josé@münchen.de"},
        {"anniversaries": {"work-anniversary": "2026-02-28T00:00:00Z"}},
    ],
)
async def test_the_schema_of_a_user_takes_what_the_api_takes(api: Api, changes: dict[str, Any]) -> None:
    """A client that checks what it sends against the schema can send all that the API accepts."""
    document = (await api.get("/openapi.json")).json
    schema = {"$ref": "#/components/schemas/ProfileInput", "components": document["components"]}
    assert jsonschema_rs.validator_for(schema).is_valid(RUNBOOK_USER | changes)
    assert (await api.post("/users", RUNBOOK_USER | changes)).status == 201


async def test_a_user_may_be_sent_as_it_was_read(api: Api) -> None:
    """What GET returns fits the schema of PUT, which changes nothing then."""
    document = (await api.get("/openapi.json")).json
    schema = {"$ref": "#/components/schemas/ProfileReplacement", "components": document["components"]}
    for user in (await api.create(), await api.create(**EXAMPLE, timezoneOffset=None)):
        assert jsonschema_rs.validator_for(schema).is_valid(user)
        answer = await api.put(f"/users/{user['id']}", user)
        assert answer.status == 200
        assert answer.json == user


async def test_a_user_is_answered_as_its_model_says(api: Api) -> None:
    """The answer that is made without the model, for speed, has the same members in the same order."""
    for user in (await api.create(), await api.create(**EXAMPLE, timezoneOffset=None)):
        members = {name: user[alias] for name, alias in zip(User.model_fields, user, strict=True)}
        members["occasions"] = [
            {"message_type": one["type"], "date": one["date"], "next_message_at": one["nextMessageAt"]}
            for one in user["occasions"]
        ]
        assert list(user) == [to_camel(name) for name in User.model_fields]
        assert orjson.loads(User.model_validate(members).model_dump_json(by_alias=True)) == user
        assert set(user) == {*READ_ONLY, *FIELDS}


async def test_every_operation_is_described(api: Api) -> None:
    """Each has what generators and readers need, and each POST takes an Idempotency-Key."""
    document = (await api.get("/openapi.json")).json
    names = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names.append(operation["operationId"])
            assert operation["summary"], path
            assert operation["description"], path
            assert set(operation["tags"]) <= {tag["name"] for tag in document["tags"]}, path
            headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
            assert ("Idempotency-Key" in headers) == (method == "post" and names[-1] not in WITHOUT_KEYS), path
            if operation.get("security") != []:
                assert {"401", "403", "429", "503"} <= set(operation["responses"]), path
    assert len(set(names)) == len(names)


async def test_no_schema_enumerates_what_generators_cannot_take(api: Api) -> None:
    """Zones are text, there is no oneOf, and the document stays small."""
    answer = await api.get("/openapi.json")
    text = answer.body.decode()
    assert len(text) < 200_000
    assert '"oneOf"' not in text
    assert "Europe/Berlin" not in text


async def test_the_document_says_where_the_api_is(api: Api, pool: asyncpg.Pool) -> None:
    """On this machine it knows; elsewhere only PUBLIC_URL can tell, because a proxy may stand in between."""
    for host, server in ((api.url.removeprefix("http://"), api.url), ("greetings.example.com", "/")):
        assert (await api.get("/openapi.json", {"Host": host})).json["servers"] == [{"url": server}]
    async with running_api(pool, public_url="https://greetings.example.com") as other:
        [server] = (await other.get("/openapi.json")).json["servers"]
        assert server["url"] == "https://greetings.example.com"


async def test_keys_are_described_where_there_are_any(pool: asyncpg.Pool) -> None:
    """With API_KEYS the document says where a key goes, and that probes need none; without, that it may be left out."""
    async with running_api(pool, api_keys=api_keys(ada="admin")) as api:
        document = (await api.get("/openapi.json")).json
        assert document["security"] == [{"bearer": []}, {"header": []}]
        assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
        assert document["paths"]["/ready"]["get"]["security"] == []
    async with running_api(pool) as api:
        document = (await api.get("/openapi.json")).json
        assert document["security"] == [{"bearer": []}, {"header": []}, {}]


async def test_the_page_needs_no_internet(api: Api) -> None:
    """Whatever /docs refers to is served by the API itself, and the policy forbids everything else."""
    page = await api.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    references = [one for one in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()) if one != "data:,"]
    assert len(references) == 3
    for reference in references:
        assert reference.startswith("/docs/")
        answer = await api.get(reference)
        assert answer.status == 200
        assert answer.body
    start = (await api.get("/docs/start.js")).body.decode()
    assert 'url: "/openapi.json"' in start
    assert "validatorUrl: null" in start
    assert "://" not in page.body.decode() + start


async def test_every_type_of_problem_is_explained(api: Api) -> None:
    """The type of a problem leads to its place on a page that the API serves."""
    page = (await api.get("/docs/problems")).body.decode()
    for path in ("/users?limit=0", "/users/1", "/nowhere"):
        address, _, place = (await api.get(path)).json["type"].partition("#")
        assert address == "/docs/problems"
        assert f'id="{place}"' in page


async def test_types_of_problems_are_absolute_where_the_address_is_known(pool: asyncpg.Pool) -> None:
    """With PUBLIC_URL they lead to the page from anywhere, whoever has refused the request."""
    address = "https://greetings.example.com/api"
    async with running_api(pool, public_url=f"{address}/", api_keys=api_keys(ada="read")) as api:
        for path, code in (
            ("/users", "no_key"),
            ("/nowhere", "not_found"),
            (f"/users?{'x' * 5000}", "target_too_long"),
        ):
            answer = await api.get(path)
            assert (answer.json["code"], answer.json["type"]) == (code, f"{address}/docs/problems#{code}")
        [example] = (
            (await api.get("/openapi.json"))
            .json["components"]["responses"]["not_acceptable"]["content"]["application/problem+json"]["examples"]
            .values()
        )
        assert example["value"]["type"] == f"{address}/docs/problems#not_acceptable"


async def test_every_answer_has_the_headers_that_all_have(pool: asyncpg.Pool) -> None:
    """The document names them with each answer, and what any request may be refused for with each operation."""
    async with running_api(pool, rate_limit="50/s") as api:
        document = (await api.get("/openapi.json")).json
        shared = document["components"]
        for item in document["paths"].values():
            for operation in item.values():
                answers = operation["responses"]
                assert {"400", "405", "408", "414", "431"} <= set(answers)
                for answer in answers.values():
                    described = shared["responses"][answer["$ref"].split("/")[-1]] if "$ref" in answer else answer
                    for name in shared["headers"]:
                        assert described["headers"][name] == {"$ref": f"#/components/headers/{name}"}
        assert set(shared["headers"]) <= set((await api.get("/users")).headers)
        probed = await api.get("/alive")
        assert "X-Request-ID" in probed.headers
        assert "RateLimit" not in probed.headers


async def test_the_page_serves_its_own_files_only(api: Api) -> None:
    """Nothing but the few files that the page needs can be had from there."""
    for name in (
        "index.html",
        "openapi.json",
        "swagger-ui.js",
        "..%2Fpyproject.toml",
        "%2Fetc%2Fpasswd",
        "oauth2-redirect.html",
    ):
        assert (await api.get(f"/docs/{name}")).status == 404
