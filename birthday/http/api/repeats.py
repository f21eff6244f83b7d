"""Requests that a client may repeat: a POST with an Idempotency-Key is carried out once, and answered alike each time.

``once`` holds a transaction with the key for the length of a handler. What the handler does with ``pool_of`` is done
in it, so effect and answer commit together. The key of a new user is stored by the statement that creates many users;
that handler is ``once_by_itself``. What has an effect elsewhere, such as an e-mail, may be repeated if the process
dies between effect and answer.

Only successes are stored. What was refused has had no effect, so a repeat is judged anew.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from typing import Final, cast
from uuid import UUID

import asyncpg
from aiohttp import hdrs, web

from birthday.errors import ConflictError, FieldError, InvalidInputError, RepeatedError
from birthday.http.api.requests import read_body
from birthday.http.context import CLIENT, CONTEXT, SUBJECT
from birthday.http.route import Handler
from birthday.store.connection import Connection, borrow
from birthday.store.idempotency import Answer, Kept, KeyedRequest, fill, find_answer, keep_user, reserve

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"

CONCERNS: Final = web.RequestKey("concerns", UUID)
"""The user whom the answer to this request is about, so that it can be erased."""

_KEY: Final = re.compile(r"[ -~]{1,255}")
# A string of RFC 9651, as the draft of the header has it.
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_KEPT_HEADERS: Final = (hdrs.CONTENT_TYPE, hdrs.LOCATION, hdrs.ETAG)


class _Held:
    """A transaction that has reserved a key."""

    def __init__(self, connection: Connection, keyed: KeyedRequest) -> None:
        self.pool = cast("asyncpg.Pool", _Lent(connection))
        self._connection = connection
        self._keyed = keyed
        self._transaction = connection.transaction()
        self._is_open = False
        self.kept: Kept | None = None

    async def begin(self) -> None:
        await self._transaction.start()
        self._is_open = True
        await reserve(self._connection, self._keyed)

    async def keep(self, user_id: UUID) -> None:
        await keep_user(self._connection, user_id)

    async def commit(self, request: web.Request, response: web.Response) -> None:
        """Store the answer, and commit it with what was done; only once."""
        if self._is_open:
            answer = answer_of(response, request.get(CONCERNS))
            await fill(self._connection, self._keyed, answer)
            self._is_open = False
            await self._transaction.commit()
            self.kept = Kept(self._keyed.fingerprint, answer)

    async def roll_back(self) -> None:
        if self._is_open:
            await self._transaction.rollback()


class _Lent:
    """Lends one connection as a pool does. The transactions of its borrowers are savepoints of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Connection]:  # noqa: ARG002, ASYNC109 - as a pool
        yield self._connection


_CarryOut = Callable[[web.Request, KeyedRequest], Awaitable[tuple[web.StreamResponse, Kept | None]]]
"""Returns the answer, and what is kept of it."""
_HELD: Final = web.RequestKey("held", _Held)
_KEYED: Final = web.RequestKey("keyed", KeyedRequest)


def once(handler: Handler) -> Handler:
    """Carry out the requests of a handler once for each key."""

    async def held(request: web.Request, keyed: KeyedRequest) -> tuple[web.StreamResponse, Kept | None]:
        if await _find(request, keyed) is not None:
            raise RepeatedError
        context = request.app[CONTEXT]
        async with context.repeats.place(), borrow(context.pool, None) as connection:
            transaction = request[_HELD] = _Held(connection, keyed)
            try:
                await transaction.begin()
                response = cast("web.Response", await handler(request))
                await transaction.commit(request, response)
            except BaseException:
                await transaction.roll_back()
                raise
        return response, transaction.kept

    return _answering(handler, held)


def once_by_itself(handler: Handler) -> Handler:
    """As ``once``, for a handler that stores its answer itself, for the request that ``keyed`` returns.

    It looks for an earlier answer only if storing its own fails, because most requests come once.
    """

    async def own(request: web.Request, keyed: KeyedRequest) -> tuple[web.StreamResponse, Kept]:
        request[_KEYED] = keyed
        response = cast("web.Response", await handler(request))
        return response, Kept(keyed.fingerprint, answer_of(response, None))

    return _answering(handler, own)


def pool_of(request: web.Request) -> asyncpg.Pool:
    """Return where a handler borrows the connection for its effect: that of the transaction that stores the answer."""
    held = request.get(_HELD)
    return request.app[CONTEXT].pool if held is None else held.pool


async def concern(request: web.Request, user_id: UUID) -> None:
    """Note whom the answer will be about. If it is stored, an erasure of the user waits until it can be erased too."""
    request[CONCERNS] = user_id
    held = request.get(_HELD)
    if held is not None:
        await held.keep(user_id)


async def commit_answer(request: web.Request, response: web.Response) -> None:
    """Commit effect and answer now, because the handler goes on with something that others must not wait for."""
    held = request.get(_HELD)
    if held is not None:
        await held.commit(request, response)


def keyed(request: web.Request) -> KeyedRequest | None:
    """Return the request of a handler that is ``once_by_itself``, if it has a key."""
    # If a request lacks it, ``get`` raises and catches an error, which is slow.
    return request.get(_KEYED) if HEADER in request.headers else None


def answer_of(response: web.Response, subject_id: UUID | None) -> Answer:
    """Return what is stored of an answer."""
    headers = {str(name): response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return Answer(response.status, headers, cast("bytes", response.body or b""), subject_id)


def _answering(handler: Handler, carry_out: _CarryOut) -> Handler:
    @wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        if HEADER not in request.headers:
            return await handler(request)
        keyed = await _read(request)
        async with request.app[CONTEXT].repeats.turn(keyed.id) as turn:
            while turn.kept is None:
                try:
                    response, turn.kept = await carry_out(request, keyed)
                except (RepeatedError, ConflictError) as error:
                    # If it has been carried out before, or meanwhile by another process, our own attempt had no effect.
                    turn.kept = await _find(request, keyed)
                    # What was stored may have been too old, and is removed now.
                    if turn.kept is None and not isinstance(error, RepeatedError):
                        raise
                else:
                    return response
            return _replay(request, keyed, turn.kept)

    return answer


async def _read(request: web.Request) -> KeyedRequest:
    given = request.headers.getall(HEADER)
    quoted = _QUOTED.fullmatch(given[0])
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else given[0]
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise web.HTTPBadRequest(text=f"one {HEADER} of 1 to 255 printable ASCII characters is accepted")
    asked = f"{request.method} {request.path_qs}\n".encode(errors="surrogateescape") + await read_body(request)
    who = request.get(CLIENT, "")
    return KeyedRequest(
        hashlib.sha256(f"{who}\n{key}".encode()).digest(),
        hashlib.sha256(asked).digest(),
        request.app[CONTEXT].clock.now(),
    )


async def _find(request: web.Request, keyed: KeyedRequest) -> Kept | None:
    async with borrow(request.app[CONTEXT].pool) as connection:
        return await find_answer(connection, keyed)


def _replay(request: web.Request, keyed: KeyedRequest, kept: Kept) -> web.Response:
    """Return the answer again.

    Raises:
        InvalidInputError: if the key was used for another request.
        HTTPGone: if the answer has been erased.
    """
    if kept.fingerprint is None:
        raise web.HTTPGone(text="the answer to this request was erased with the person whom it was about")
    if kept.fingerprint != keyed.fingerprint:
        detail = f"this {HEADER} was used for another request, with another path or body: use a new key"
        raise InvalidInputError(FieldError("", detail), code="idempotency_key_reused")
    answer = kept.answer
    if answer.subject_id is not None:
        request[SUBJECT] = str(answer.subject_id)
    return web.Response(body=answer.body, status=answer.status, headers={**answer.headers, REPLAYED: "true"})
