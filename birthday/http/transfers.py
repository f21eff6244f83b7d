"""What imports and exports do over HTTP, whether a program asks for them or a page."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext

import structlog
from aiohttp import hdrs, web

from birthday.http.context import CONTEXT, ApiContext
from birthday.http.headers import accepts_gzip
from birthday.http.streaming import ClientError, Stream
from birthday.operations.transfer.exporting import stream_users
from birthday.operations.transfer.importing import ImportOptions, Target
from birthday.operations.transfer.records import Format
from birthday.store.connection import Connection, borrow

log = structlog.get_logger()


@asynccontextmanager
async def connection_for(context: ApiContext, options: ImportOptions) -> AsyncIterator[Connection]:
    """Lend a connection for an import. That of a dry run goes past a pooler without sessions, if there is a way."""
    async with (
        context.past_pooler() if options.dry_run else nullcontext() as direct,
        borrow(direct or context.pool, None) as connection,
    ):
        yield connection


@contextmanager
def counted(context: ApiContext, target: Target) -> Iterator[None]:
    """Move the metrics by what was imported, also if the import fails."""
    try:
        yield
    finally:
        if not target.options.dry_run:
            context.metrics.users_created.inc(target.summary.created)
            context.metrics.messages_scheduled.inc(target.summary.messages_scheduled)
            context.metrics.messages_cancelled.inc(target.summary.messages_cancelled)


async def send_users(
    request: web.Request, file_format: Format, media_type: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Answer with all users, as a stream; packed for clients that read that."""
    async with (
        Stream(request, media_type, headers) as stream,
        aclosing(stream_users(request.app[CONTEXT].pool, file_format)) as pieces,
    ):
        stream.answer.headers.setdefault(hdrs.VARY, hdrs.ACCEPT_ENCODING)
        if accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            stream.answer.enable_compression(web.ContentCoding.gzip)
        try:
            async for piece in pieces:
                await stream.write(piece)
            return await stream.end()
        except ClientError as error:
            log.info("export.broken_off", reason=str(error))
            return stream.break_off()
