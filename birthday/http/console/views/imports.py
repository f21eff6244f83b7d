"""Users from a file, and as a file.

The file goes to a temporary file first: browsers read no answer before they have sent everything, so nobody would see
how far it has come. Nothing is kept of it. Rejected rows are part of the page, up to a limit, as links to be saved.
"""

import os
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from io import FileIO
from typing import Final, cast

from aiohttp import BodyPartReader, web
from aiohttp.http import HttpProcessingError
from markupsafe import Markup

from birthday.config import Scope
from birthday.errors import FieldError, InvalidInputError, UnavailableError
from birthday.http.console.progress import progress
from birthday.http.console.rendering import page, render
from birthday.http.console.view import ROOT, View, actor_of, now
from birthday.http.context import CONTEXT, IMPORTS, Served
from birthday.http.transfers import connection_for, counted, send_users
from birthday.operations.transfer.changing import Result
from birthday.operations.transfer.columns import Column, read_columns
from birthday.operations.transfer.importing import ImportOptions, ImportSummary, Mode, Target, import_chunks
from birthday.operations.transfer.records import COLUMNS, DATE_PREFIX, Format, Rejected
from birthday.operations.transfer.rejects import Rejects
from birthday.operations.transfer.source import read_chunks
from birthday.store.changes import USER, record_changes
from birthday.store.connection import borrow

MAX_FILE_BYTES: Final = 128 * 1024 * 1024
"""About a million users. The command line takes more."""
EXPORTED: Final = "exported"
_FIELD_BYTES: Final = 1024
_PIECE_BYTES: Final = 64 * 1024
_BATCH_ROWS: Final = 500
_SHOWN: Final = 20
_TELL_SECONDS: Final = 0.25
_EXPORTS: Final = {Format.CSV: "text/csv", Format.NDJSON: "application/x-ndjson"}


async def ask(request: web.Request) -> web.Response:
    """Show the form, and what a file has to have."""
    return page(request, "import.html", title="Import users", columns=COLUMNS, date_prefix=DATE_PREFIX)


async def upload(request: web.Request) -> web.StreamResponse:
    """Try or import a file. Rows that are wrong lose no other; closing the page leaves whole users."""
    context = request.app[CONTEXT]
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(text="the form has another type than expected")
    if context.importing.locked():
        raise UnavailableError("import", f"{IMPORTS} imports run in this process")
    cast("Served", request.protocol).expect_long_body()
    async with context.importing:
        with tempfile.TemporaryFile(buffering=0) as file:
            fields = await _receive(request, file)
            columns = read_columns(file)
            if not os.fstat(file.fileno()).st_size:
                raise InvalidInputError(FieldError("", "the file is empty, or none was chosen"))
            mode = Mode.UPSERT if fields.get("mode") == Mode.UPSERT else Mode.CREATE
            options = ImportOptions(mode, dry_run=fields.get("do") != "import", batch_rows=_BATCH_ROWS)
            return await _import(request, file, columns, options)


async def _receive(request: web.Request, file: FileIO) -> dict[str, str]:
    """Write the file of the form to ``file``, and return the other fields. Each may be there once."""
    fields: dict[str, str] = {}
    missing = {"file", "mode", "do"}
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in missing:
                raise web.HTTPBadRequest(text="the form has another field than file, mode and do, or one of them twice")
            missing.remove(part.name)
            size = 0
            while piece := await part.read_chunk(_PIECE_BYTES):
                size += len(piece)
                if size > (MAX_FILE_BYTES if part.name == "file" else _FIELD_BYTES):
                    raise web.HTTPRequestEntityTooLarge(
                        max_size=MAX_FILE_BYTES,
                        actual_size=size,
                        text=f"the file is too large: at most {MAX_FILE_BYTES // 2**20} MiB are accepted here, "
                        "and 'birthday import' takes any size",
                    )
                if part.name == "file":
                    file.write(piece)
                else:
                    fields[part.name] = fields.get(part.name, "") + piece.decode(errors="replace")
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise web.HTTPBadRequest(text=f"the file could not be read to its end: {error}") from None
        raise UnavailableError("temporary directory", f"the upload cannot be stored: {error.strerror}") from None
    except (web.RequestPayloadError, HttpProcessingError, ValueError, RuntimeError) as error:
        raise web.HTTPBadRequest(text=f"the form could not be read: {error}") from None
    return fields


async def _import(
    request: web.Request, file: FileIO, columns: Sequence[Column], options: ImportOptions
) -> web.StreamResponse:
    context, rejects, told_at = request.app[CONTEXT], Rejects(), time.monotonic()
    title = "Checking the file" if options.dry_run else "Importing the file"
    async with progress(request, title, f"{ROOT}/import") as report:

        async def tell(results: Sequence[Result], summary: ImportSummary, _bytes: int) -> None:
            nonlocal told_at
            for result in results:
                if result.errors:
                    rejects.add(Rejected(result.line, result.errors))
            if time.monotonic() - told_at >= _TELL_SECONDS:
                told_at = time.monotonic()
                await report(f"{summary.read:,} rows read, {summary.rejected:,} rejected")

        wrong, summary = None, ImportSummary()
        try:
            async with connection_for(context, options) as connection:
                by = actor_of(request)
                target = Target(connection, context.clock, context.planning, by, tell, options)
                with counted(context, target):
                    summary = await import_chunks(read_chunks(file), None, target)
        except InvalidInputError as error:
            wrong = str(error)
        rows = await rejects.rows(file)
        text = render(
            request,
            "import_result.html",
            dry_run=options.dry_run,
            summary=summary,
            wrong=wrong,
            columns=columns,
            rejects=rejects,
            shown=rejects.kept[:_SHOWN],
            rows=_link(rows),
            errors=_link(rejects.errors()),
            extension="ndjson" if rows.startswith(b"{") else "csv",
        )
        await report(Markup(text))  # noqa: S704 - it was rendered with all values escaped
    return report.answer


def _link(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{b64encode(content).decode()}"


async def export(request: web.Request) -> web.StreamResponse:
    """Return all users as a file that an import takes; that is recorded."""
    try:
        file_format = Format(request.query.get("format", Format.CSV))
    except ValueError:
        raise web.HTTPBadRequest(text=f"the format is none of {', '.join(Format)}") from None
    at = now(request)
    change = actor_of(request).change(EXPORTED, USER, "", after={"format": file_format.value})
    async with borrow(request.app[CONTEXT].pool) as connection, connection.transaction():
        await record_changes(connection, [change], at)
    name = f"users-{at:%Y-%m-%d}.{file_format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return await send_users(request, file_format, _EXPORTS[file_format], headers)


VIEWS: Final = (
    View("GET", "/import", Scope.WRITE, ask, nav="Import"),
    View("POST", "/import", Scope.WRITE, upload),
    View("GET", "/export", Scope.WRITE, export),
)
