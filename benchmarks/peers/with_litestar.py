"""Litestar on uvicorn with msgspec: what a user is, in and out."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Annotated
from uuid import UUID, uuid4

import asyncpg
import msgspec
import uvicorn
from litestar import Litestar, get, post
from litestar.datastructures import State

CREATE = """
    INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7)
"""
READ = """
    SELECT id, first_name, last_name, email, date_of_birth, timezone FROM users WHERE id = $1 AND deleted_at IS NULL
"""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class NewUser(msgspec.Struct, rename="camel"):
    """What a client posts."""

    first_name: Name
    last_name: Name
    email: Annotated[str, msgspec.Meta(pattern=r"^[^@\s]+@[^@\s]+$")]
    date_of_birth: date
    timezone: str


class User(NewUser, rename="camel", kw_only=True):
    """What a client gets."""

    id: UUID


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    """Hold the pool."""
    async with asyncpg.create_pool(sys.argv[1], min_size=2, max_size=20) as app.state.pool:
        yield


@post("/users")
async def create(data: NewUser, state: State) -> User:
    """Insert a user."""
    user = User(id=uuid4(), **msgspec.structs.asdict(data))
    values = (user.first_name, user.last_name, user.email, user.date_of_birth, user.timezone)
    await state.pool.execute(CREATE, user.id, *values, datetime.now(UTC))
    return user


@get("/users/{user_id:uuid}")
async def read(user_id: UUID, state: State) -> User:
    """Select a user."""
    return User(**dict(await state.pool.fetchrow(READ, user_id)))


app = Litestar([create, read], lifespan=[lifespan])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
