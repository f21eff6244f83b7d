"""The plain handler: aiohttp, pydantic and asyncpg as their tutorials put them together, one statement a request.

Run as ``python -m benchmarks.bare_api DATABASE_URL``; it prints its port. It stores and returns what our API does, and
does nothing else of what that does: no planning, request ids, metrics, logs, problem details or access control.
"""

import asyncio
import sys
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import uvloop
from aiohttp import web
from pydantic import BaseModel, Field

from birthday.core.ident import uuid7

POOL = web.AppKey("POOL", asyncpg.Pool)


class NewUser(BaseModel):
    """What a client posts."""

    firstName: str = Field(min_length=1, max_length=100)  # noqa: N815 - JSON
    lastName: str = Field(min_length=1, max_length=100)  # noqa: N815 - JSON
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    dateOfBirth: date  # noqa: N815 - JSON
    timezone: str


async def create(request: web.Request) -> web.Response:
    """Insert a user."""
    user = NewUser.model_validate(await request.json())
    now = datetime.now(UTC)
    async with request.app[POOL].acquire() as connection:
        row = await connection.fetchrow(
            """
            INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone,
                               schedule_from, created_at, updated_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7)
            RETURNING id, first_name, last_name, email, date_of_birth, timezone, created_at, updated_at
            """,
            uuid7(now),
            user.firstName,
            user.lastName,
            user.email,
            user.dateOfBirth,
            user.timezone,
            now,
        )
    return _answer(row, 201)


async def read(request: web.Request) -> web.Response:
    """Select a user."""
    async with request.app[POOL].acquire() as connection:
        row = await connection.fetchrow(
            """
            SELECT id, first_name, last_name, email, date_of_birth, timezone, created_at, updated_at
            FROM users WHERE id = $1 AND deleted_at IS NULL
            """,
            UUID(request.match_info["id"]),
        )
    return _answer(row, 200)


def _answer(row: asyncpg.Record | None, status: int) -> web.Response:
    assert row is not None
    body = {
        "id": str(row["id"]),
        "firstName": row["first_name"],
        "lastName": row["last_name"],
        "email": row["email"],
        "dateOfBirth": row["date_of_birth"].isoformat(),
        "timezone": row["timezone"],
        "createdAt": row["created_at"].isoformat(),
        "updatedAt": row["updated_at"].isoformat(),
    }
    return web.json_response(body, status=status)


async def serve(database: str) -> None:
    """Serve until killed."""
    app = web.Application()
    app[POOL] = await asyncpg.create_pool(database, min_size=2, max_size=20)
    app.add_routes([web.post("/users", create), web.get("/users/{id}", read)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
