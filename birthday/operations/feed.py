"""The order of the feed of outcomes in a restored or promoted copy of the database."""

import asyncpg
import structlog

from birthday.store.connection import borrow
from birthday.store.feed import follow_cluster

log = structlog.get_logger()


async def keep_order(pool: asyncpg.Pool) -> None:
    """Let further outcomes come behind all that pollers may have read of the database that this is a copy of.

    Raises:
        UnavailableError: if the database cannot be used.
    """
    try:
        async with borrow(pool, None) as connection:
            moved = await follow_cluster(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        # Only the owner of the schema's functions may replace one.
        reason = "pollers may miss outcomes; start the service once as the owner of the tables"
        log.warning("feed.out_of_order", error=error, reason=reason)
    else:
        if moved:
            log.info("feed.moved", reason="this is a restored or promoted copy of the database")
