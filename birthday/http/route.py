"""How a resource declares its routes. What aiohttp serves and the OpenAPI document are made of these declarations."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import cleandoc, get_annotations
from typing import get_args

from aiohttp import web
from pydantic import BaseModel

from birthday.config import Scope
from birthday.http.kinds import Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
"""What PATCH does (RFC 7396)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers if it succeeds: a ``model`` as JSON, text of other ``media_types``, or nothing.

    ``headers`` describes each header by name, ``optional_headers`` those that only some such answers have. ``links``
    names operations that take the ``id`` of the answer.
    """

    description: str
    model: type[BaseModel] | None = None
    status: int = 200
    media_types: tuple[str, ...] = (JSON,)
    headers: dict[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    optional_headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One operation: who may do it, what it takes, and all that it can answer.

    The handler is called with the request and, if it has parameters of these names, with ``query`` and ``body``. Their
    annotations are the models that validate these; ``Annotated[object, Model]`` is JSON that the handler validates
    itself. The docstring of the handler is the description for clients. ``problems`` are those of this operation;
    those that follow from scope, query and body are not named. ``scope`` is None if the operation is open to everybody.
    """

    method: str
    path: str
    scope: Scope | None
    handler: Callable[..., Awaitable[web.StreamResponse]]
    name: str
    answer: Answer | tuple[Answer, ...]
    problems: tuple[Kind, ...] = ()
    takes: tuple[str, ...] = (JSON,)
    """The media types of the body."""
    headers: dict[str, str] = field(default_factory=dict)
    """Optional headers of the request: name and description."""

    repeats: Callable[[Handler], Handler] | None = None
    """What makes the handler of a POST keep its answer under the Idempotency-Key of the request."""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What it can answer if it succeeds."""
        return (self.answer,) if isinstance(self.answer, Answer) else self.answer

    @property
    def summary(self) -> str:
        """The name in words."""
        return re.sub("[A-Z]", lambda letter: f" {letter[0].lower()}", self.name).capitalize()

    @property
    def tag(self) -> str:
        """The resource that the document groups it with."""
        return "Probes" if self.scope is None else self.path.split("/")[1].capitalize()

    @property
    def description(self) -> str:
        """What the operation does."""
        return cleandoc(self.handler.__doc__ or "")

    @property
    def is_read(self) -> bool:
        """Whether it reads a resource: such answers have tags, and clients may ask for what has changed only."""
        return self.method == "GET" and self.scope is not None and self.answers[0].model is not None

    @property
    def query(self) -> type[BaseModel] | None:
        """The model of the query."""
        model: type[BaseModel] | None = get_annotations(self.handler).get("query")
        return model

    @property
    def has_pages(self) -> bool:
        """Whether it answers with a page that may name the next one."""
        return self.query is not None and "cursor" in self.query.model_fields

    @property
    def body(self) -> type[BaseModel] | None:
        """The model of the body."""
        annotation = get_annotations(self.handler).get("body")
        model: type[BaseModel] | None = get_args(annotation)[1] if get_args(annotation) else annotation
        return model

    @property
    def is_body_raw(self) -> bool:
        """Whether the handler validates the body itself."""
        return bool(get_args(get_annotations(self.handler).get("body")))
