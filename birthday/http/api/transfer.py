"""Import and export of users: streams of lines, for any number of users."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

import orjson
import structlog
from aiohttp import hdrs, web
from pydantic import Field

from birthday.config import Scope
from birthday.errors import InvalidInputError, UnavailableError
from birthday.http.api.parameters import Flag, Input, one_of
from birthday.http.api.requests import is_utf8
from birthday.http.context import CONTEXT, IMPORTS, actor_of
from birthday.http.kinds import INVALID_FIELD, NOT_ACCEPTABLE
from birthday.http.route import Answer, Route
from birthday.http.streaming import ClientError, Stream, answer_while_reading, read_pieces
from birthday.http.transfers import connection_for, counted, send_users
from birthday.operations.transfer.changing import Outcome, Result
from birthday.operations.transfer.importing import ImportOptions, ImportSummary, Mode, Target, import_chunks
from birthday.operations.transfer.records import Format

log = structlog.get_logger()

NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
BYTES: Final = "application/octet-stream"
_FORMATS: Final = {NDJSON: Format.NDJSON, CSV: Format.CSV}
_TAKEN: Final = _FORMATS | {BYTES: Format.NDJSON}
"""Generated clients that do not know NDJSON can send bytes."""
_BATCH_ROWS: Final = 500
"""Few, so that results come soon, and the event loop is free in between."""


class ImportQuery(Input):
    """How to import."""

    mode: Annotated[Mode, one_of(Mode)] = Field(
        default=Mode.CREATE,
        description="create: a line that differs from its user is a conflict. upsert: it changes the user, who is "
        "found by externalId, then by e-mail address. What the line lacks stays as it is.",
    )
    dry_run: Flag = Field(default=False, description="true tells what would happen, and changes nothing.")


async def import_lines(request: web.Request, query: ImportQuery) -> web.StreamResponse:
    """Create a user for each line: CSV with a header, or NDJSON with the objects that creating a user takes.

    Lines are read and answered while they come, however many there are. Each is answered by a JSON object on a line:
    `line` (its number), `status` (created, updated, unchanged, invalid or conflict), `id` (of the user whom it is
    about, or null) and `errors`. The last line has `summary`; its `complete` says whether all lines were read. A line
    is stored once it is answered; if the request ends early, send it again: what is stored is unchanged then. Read the
    answer while you send; about 40,000 lines may be sent before.
    """
    context = request.app[CONTEXT]
    # Without the header, aiohttp says that the type is bytes.
    file_format = _TAKEN.get(request.content_type if hdrs.CONTENT_TYPE in request.headers else "")
    if file_format is None or not is_utf8(request):
        accepted = " or ".join(_FORMATS)
        raise web.HTTPUnsupportedMediaType(text=f"another Content-Type is given; {accepted} in UTF-8 is accepted")
    if context.importing.locked():
        raise UnavailableError("import", f"{IMPORTS} imports run in this process")
    counts: Counter[Outcome] = Counter()
    options = ImportOptions(query.mode, bool(query.dry_run), each_row=True, batch_rows=_BATCH_ROWS)
    answer_while_reading(request)
    async with context.importing, Stream(request, NDJSON) as stream:

        async def tell(results: Sequence[Result], _summary: ImportSummary, _bytes: int) -> None:
            counts.update(result.outcome for result in results)
            await stream.write(b"".join(map(_line, results)))

        fault = None
        try:
            async with connection_for(context, options) as connection:
                target = Target(connection, context.clock, context.planning, actor_of(request), tell, options)
                with counted(context, target):
                    await import_chunks(read_pieces(request), file_format, target)
        except (InvalidInputError, UnavailableError) as error:
            if not stream.has_begun:
                raise
            fault = str(error) if isinstance(error, InvalidInputError) else f"the {error.resource} cannot be used now"
            log.info("import.broken_off", reason=str(error), lines=counts.total())
        except ClientError as error:
            log.info("import.broken_off", reason=str(error), lines=counts.total())
            if not stream.has_begun:
                raise web.HTTPBadRequest(text=str(error)) from None
            return stream.break_off()
        await stream.write(_summary_line(counts, fault, dry_run=options.dry_run))
        return await stream.end()


def _line(result: Result) -> bytes:
    errors = [{"pointer": error.pointer, "detail": error.detail} for error in result.errors]
    members = {"line": result.line, "status": result.outcome, "id": result.user_id, "errors": errors}
    return orjson.dumps(members, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _summary_line(counts: Counter[Outcome], fault: str | None, *, dry_run: bool) -> bytes:
    members: dict[str, Any] = {"lines": counts.total(), **{name.value: counts[name] for name in Outcome}}
    members |= {"dryRun": dry_run, "complete": fault is None, "detail": fault}
    return orjson.dumps({"summary": members}, option=orjson.OPT_APPEND_NEWLINE)


async def export_lines(request: web.Request) -> web.StreamResponse:
    """Return all users, in order of creation, as NDJSON or CSV, in a form that an import takes.

    `Accept` decides the format. Each user is as at the time when the line is written. An answer that does not end as
    HTTP says, because its connection broke, is not complete.
    """
    media_type = _choose(request.headers.get(hdrs.ACCEPT, "*/*"))
    if media_type is None:
        raise web.HTTPNotAcceptable(text=f"Accept names neither; {' or '.join(_FORMATS)} can be had")
    headers = {"Vary": "Accept, Accept-Encoding"}
    if request.method == hdrs.METH_HEAD:
        return web.Response(content_type=media_type, headers=headers)
    return await send_users(request, _FORMATS[media_type], media_type, headers)


def _choose(accept: str) -> str | None:
    """Return the media type that a client likes best (RFC 9110, 12.5.1); None if it accepts neither."""
    weights = dict.fromkeys(_FORMATS, 0.0)
    ranges = [_range(one) for one in accept.lower().split(",")]
    # The more specific ranges come last, and override the others.
    for name, weight in sorted(ranges, key=lambda one: -one[0].count("*")):
        for media_type in weights:
            if fnmatchcase(media_type, name):
                weights[media_type] = weight
    best = max(weights, key=lambda media_type: weights[media_type])
    return best if weights[best] else None


def _range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    weight = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            with suppress(ValueError):
                weight = float(parameter.removeprefix("q="))
    return name.replace("[", ""), weight


ROUTES: Final = (
    Route(
        "POST",
        "/users/import",
        Scope.WRITE,
        import_lines,
        "importUsers",
        Answer("A result for each line, then the summary.", media_types=(NDJSON,)),
        (INVALID_FIELD,),
        takes=(NDJSON, CSV, BYTES),
    ),
    Route(
        "GET",
        "/users/export",
        Scope.READ,
        export_lines,
        "exportUsers",
        Answer("All users.", media_types=(NDJSON, CSV)),
        (NOT_ACCEPTABLE,),
    ),
)
