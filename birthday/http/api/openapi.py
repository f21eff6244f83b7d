"""The OpenAPI 3.1 document at ``/openapi.json``: made of the declarations of the routes and of their models."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from birthday.core.fields import EXTERNAL_ID_PATTERN, LOCALE_PATTERN, MAX_EXTERNAL_ID, TYPE_PATTERN
from birthday.core.template import DEFAULT
from birthday.core.text import INVISIBLE_BEYOND
from birthday.http import kinds
from birthday.http.kinds import KINDS, Kind
from birthday.http.route import JSON, Answer, Route
from birthday.operations.keys import ID_PATTERN

_PROBLEM_JSON: Final = "application/problem+json"
_COMPONENT: Final = "#/components/schemas/{model}"
_GUARDED: Final = (
    kinds.NO_KEY,
    kinds.UNKNOWN_KEY,
    kinds.ENDED_KEY,
    kinds.MISSING_SCOPE,
    kinds.FOREIGN_HOST,
    kinds.RATE_LIMITED,
    kinds.INTERNAL_ERROR,
    kinds.UNAVAILABLE,
)
"""What every operation with a scope may answer."""
_EVERYWHERE: Final = (
    kinds.MALFORMED,
    kinds.WRONG_METHOD,
    kinds.TOO_SLOW,
    kinds.TARGET_TOO_LONG,
    kinds.HEAD_TOO_LARGE,
)
"""What every operation may answer, before it is known which one is meant."""
_CHANGING: Final = (kinds.OUTCOME_UNKNOWN, kinds.WRONG_CLOCK)
_WITH_BODY: Final = (
    kinds.BODY_TOO_LARGE,
    kinds.UNSUPPORTED_MEDIA_TYPE,
    kinds.INVALID_FIELD,
)
_REPEATED: Final = (kinds.IN_PROGRESS, kinds.ANSWER_ERASED, kinds.KEY_REUSED)
_KEY: Final = {
    "type": "string",
    "pattern": "^[!-~]([ -~]{0,253}[!-~])?$",
    "description": "A key of your choice. A repeat with the same key has no second effect: it gets the same answer.",
}
_BINARY: Final = {"application/octet-stream": {"format": "binary"}}
_CONDITION: Final = {"If-None-Match": "Answer 304 if the ETag is still one of these."}
_CONDITIONS: Final = {
    "If-Match": "Change it only if its ETag is still one of these.",
    "If-None-Match": "With *: only if it does not exist yet.",
}
_TAG: Final = {"ETag": "The tag of this state, for If-Match and If-None-Match."}
_LINK: Final = {"Link": "The path of the next page, with rel=next; the last page has none."}
_REPLAYED: Final = {"Idempotent-Replayed": "true, if the answer is that of an earlier request."}
_RETRY_AFTER: Final = {"Retry-After": "Seconds."}
_ALLOW: Final = {"Allow": "The methods that are possible at this path."}
_ALWAYS: Final = {
    "X-Request-ID": {
        "description": "The id of the request in the log: that of the request header of this name, or a new one.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "How many more requests the client may send (r) within so many seconds (t). With RATE_LIMIT, on "
        "the answers that it counts: not those of probes and documents, nor where there is nothing.",
        "schema": {"type": "string", "examples": ['"default";r=49;t=1']},
    },
    "RateLimit-Policy": {
        "description": "Where there is a RateLimit: how many requests (q) a window of so many seconds (w) has.",
        "schema": {"type": "string", "examples": ['"default";q=50;w=1']},
    },
}
"""The headers of every answer."""
_REFERENCES: Final = {name: {"$ref": f"#/components/headers/{name}"} for name in _ALWAYS}

_IN_PATH: Final[dict[str, dict[str, Any]]] = {
    "keyId": {
        "schema": {"type": "string", "pattern": ID_PATTERN, "examples": ["3f9ac2d1"]},
        "description": "The part of a key between its underscores.",
    },
    "id": {"schema": {"type": "string", "format": "uuid"}, "description": "The id that the API has given it."},
    "externalId": {
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_EXTERNAL_ID,
            "pattern": EXTERNAL_ID_PATTERN.replace(INVISIBLE_BEYOND, ""),
            "examples": ["crm-4711"],
        },
        "description": "The user's id at the customer, percent-encoded.",
    },
    "type": {
        "schema": {"type": "string", "pattern": TYPE_PATTERN, "examples": ["birthday"]},
        "description": "What is greeted.",
    },
    "locale": {
        "schema": {"type": "string", "pattern": f"^{DEFAULT}$|{LOCALE_PATTERN}", "examples": ["default", "pt-BR"]},
        "description": "A BCP 47 language tag, or default.",
    },
}
"""The parameters of paths, by name."""

_TAGS: Final = {
    "Users": "Who is greeted.",
    "Occasions": "Whose day it is.",
    "Messages": "What was or will be sent.",
    "Suppressions": "Who has opted out.",
    "Templates": "What is said.",
    "Keys": "Who may use the API.",
    "Changes": "Who changed what.",
    "Probes": "How the process does. Open to everybody.",
}


class ProblemError(BaseModel):
    """One thing that is wrong with the request."""

    model_config = ConfigDict(extra="forbid")

    pointer: str = Field(default="", description="A field of the body, as RFC 6901 JSON pointer.", examples=["/email"])
    parameter: str = Field(default="", description="Instead of pointer: a parameter of the query or path.")
    detail: str = Field(description="What is wrong, and what is accepted.")


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(
        json_schema_extra={"format": "uri-reference"},
        description="The kind of problem: the address of its explanation, absolute if PUBLIC_URL is set.",
        examples=[kinds.EMAIL_TAKEN.uri()],
    )
    title: str = Field(description="The kind of problem for people.", examples=[kinds.EMAIL_TAKEN.title])
    status: int = Field(description="The status of the answer.", examples=[409])
    detail: str = Field(description="What has happened.")
    code: str = Field(
        description=f"The kind of problem for programs: {', '.join(KINDS)}. There may be more later.",
        examples=[kinds.EMAIL_TAKEN.code],
    )
    requestId: str = Field(description="The X-Request-ID, under which the log tells more.")  # noqa: N815 - as JSON
    errors: list[ProblemError] = Field(default=[], description="What is wrong with which field or parameter.")
    existingId: str = Field(  # noqa: N815
        default="",
        json_schema_extra={"format": "uuid"},
        description="With email_taken and external_id_taken: the user who has it.",
    )


class _Schemas(GenerateJsonSchema):
    """Schemas as generators read them best: in our order, no titles of members, no defaults of answers or of null.

    Patterns are those that JavaScript can read, so they may accept a little more than the API does.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - its type is private to pydantic
        return False

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        return value

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        described = super().default_schema(schema)
        if self.mode == "serialization" or described.get("default") is None:
            described.pop("default", None)
        return described

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        described = super().str_schema(schema)
        if "pattern" in described:
            described["pattern"] = described["pattern"].replace(INVISIBLE_BEYOND, "")
        return described

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return inner | {"type": [inner["type"], "null"]}
        return super().nullable_schema(schema)


def document(routes: Sequence[Route], server: str, *, with_keys: bool) -> dict[str, Any]:
    """Return the document; ``with_keys`` says that a key is needed."""
    schemas = _Components(routes, server.rstrip("/"))
    components: dict[str, Any] = {"schemas": schemas.shared, "responses": schemas.responses, "headers": _ALWAYS}
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r":[^}]+", "", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Birthday Scheduler",
            "version": version("birthday-scheduler"),
            "description": "One birthday message per user and year, at 09:00 where the user lives.",
            "contact": {"name": "The operators of this installation", "url": server},
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": components,
    }
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    }
    described["security"] = [{"bearer": []}, {"header": []}, *([] if with_keys else [{}])]
    # Pydantic also describes types that it does not need, because another schema stands for them.
    used = set(re.findall(r'"#/components/schemas/(\w+)"', orjson.dumps(described).decode()))
    components["schemas"] = {name: schema for name, schema in schemas.shared.items() if name in used}
    return described


class _Components:
    """The schemas of all models that routes name, and the responses that operations share.

    ``tagged`` are the paths and models that are read with a tag.
    """

    def __init__(self, routes: Iterable[Route], address: str) -> None:
        self.address = address
        self.responses: dict[str, Any] = {}
        self.tagged = {(route.path, route.answers[0].model) for route in routes if route.is_read}
        queries = {route.query for route in routes if route.query}
        inputs = queries | {route.body for route in routes if route.body}
        outputs = {Problem} | {answer.model for route in routes for answer in route.answers if answer.model}
        named = [(model, "validation") for model in inputs] + [(model, "serialization") for model in outputs]
        self._refs, described = models_json_schema(
            sorted(named, key=lambda one: one[0].__name__),  # type: ignore[arg-type]
            ref_template=_COMPONENT,
            schema_generator=_Schemas,
        )
        self.shared: dict[str, Any] = described["$defs"]
        self._queries = {model: self.shared.pop(model.__name__) for model in queries}

    def ref(self, model: type[BaseModel], mode: Literal["validation", "serialization"]) -> dict[str, Any]:
        """Return the reference to the schema of a model."""
        return self._refs[model, mode]

    def parameters(self, query: type[BaseModel]) -> list[dict[str, Any]]:
        """Return the parameters of a query."""
        schema = self._queries[query]
        required = schema.get("required", ())
        return [
            _parameter("query", name, member) | ({"required": True} if name in required else {})
            for name, member in schema["properties"].items()
        ]

    def example(self, model: type[BaseModel]) -> Any:  # noqa: ANN401 - any JSON
        """Return an example of a body."""
        return self.shared[model.__name__]["examples"][0]


def _operation(route: Route, schemas: _Components) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, **_IN_PATH[name]} for name in re.findall(r"{(\w+)", route.path)
    ]
    parameters += schemas.parameters(route.query) if route.query else []
    headers = _CONDITION if route.is_read else _CONDITIONS if kinds.OUTDATED in route.problems else {}
    parameters += [
        _parameter("header", name, {"type": "string", "description": text})
        for name, text in (headers | route.headers).items()
    ]
    parameters += [_parameter("header", "Idempotency-Key", _KEY)] if route.repeats else []
    scope = f"\n\nNeeds a key with the scope `{route.scope}`, if there are keys." if route.scope else ""
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": f"{route.description}{scope}",
        "parameters": parameters,
    }
    if route.scope is None:
        operation["security"] = []
    if route.body:
        content = {"schema": schemas.ref(route.body, "validation"), "example": schemas.example(route.body)}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(route.takes, content)}
    elif route.takes != (JSON,):
        operation["requestBody"] = {
            "required": True,
            "content": {
                media_type: {"schema": {"type": "string"} | _BINARY.get(media_type, {})} for media_type in route.takes
            },
        }
    sometimes = (_REPLAYED if route.repeats else {}) | (_LINK if route.has_pages else {})
    answers = {
        str(answer.status): _answer(
            answer, _TAG if (route.path, answer.model) in schemas.tagged else {}, sometimes, schemas
        )
        for answer in route.answers
    }
    if route.is_read:
        answers["304"] = {"description": "The client has just this.", "headers": _headers(_TAG) | _REFERENCES}
    operation["responses"] = answers | _problems(route, schemas)
    return operation


def _parameter(place: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    described = {key: value for key, value in schema.items() if key != "description"}
    return {"name": name, "in": place, "description": schema["description"], "schema": described}


def _answer(answer: Answer, tag: dict[str, str], sometimes: dict[str, str], schemas: _Components) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.model:
        described["content"] = {JSON: {"schema": schemas.ref(answer.model, "serialization")}}
    elif answer.media_types != (JSON,):
        described["content"] = {media_type: {"schema": {"type": "string"}} for media_type in answer.media_types}
    headers = answer.headers | tag
    sometimes = sometimes | answer.optional_headers
    described["headers"] = _headers(headers) | _headers(sometimes, required=False) | _REFERENCES
    if answer.links:
        described["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in answer.links
        }
    return described


def _headers(headers: Mapping[str, str], *, required: bool = True) -> dict[str, Any]:
    return {
        name: {"description": text, "required": required, "schema": {"type": "string"}}
        for name, text in headers.items()
    }


def _problems(route: Route, schemas: _Components) -> dict[str, Any]:
    """Return the problems of a route by status, and add the responses that describe them."""
    possible = [*route.problems, *_EVERYWHERE, *(_GUARDED if route.scope else ())]
    possible += _CHANGING if route.scope and route.method != "GET" else ()
    possible += _WITH_BODY if route.body or route.takes != (JSON,) else ()
    possible += [kinds.INVALID_PARAMETER] if route.scope else []
    possible += _REPEATED if route.repeats else ()
    by_status: dict[int, list[Kind]] = {}
    for kind in sorted(set(possible), key=lambda kind: (kind.status, kind.code)):
        by_status.setdefault(kind.status, []).append(kind)
    found = {}
    for status, some in by_status.items():
        name = "_or_".join(kind.code for kind in some)
        schemas.responses.setdefault(name, _problem(some, schemas))
        found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return found


def _problem(some: Sequence[Kind], schemas: _Components) -> dict[str, Any]:
    examples = {
        kind.code: {
            "summary": kind.title,
            "value": {
                "type": kind.uri(schemas.address),
                "title": kind.title,
                "status": kind.status,
                "detail": kind.meaning,
                "code": kind.code,
                "requestId": "1f0c2d4b8a9e7766",
            },
        }
        for kind in some
    }
    sometimes = {429: _RETRY_AFTER, 503: _RETRY_AFTER, 405: _ALLOW}.get(some[0].status, {})
    return {
        "description": " ".join(f"`{kind.code}`: {kind.meaning}" for kind in some),
        "headers": _headers(sometimes) | _REFERENCES,
        "content": {_PROBLEM_JSON: {"schema": schemas.ref(Problem, "serialization"), "examples": examples}},
    }
