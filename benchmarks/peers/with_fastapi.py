"""FastAPI on uvicorn: what a user is, in and out, as its tutorial has it."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import asyncpg
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

CREATE = """
    INSERT INTO users (id, first_name, last_name, email, date_of_birth, timezone, schedule_from, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $7)
"""
READ = """
    SELECT id, first_name, last_name, email, date_of_birth, timezone FROM users WHERE id = $1 AND deleted_at IS NULL
"""


class NewUser(BaseModel):
    """What a client posts."""

    firstName: str = Field(min_length=1, max_length=100)  # noqa: N815 - JSON
    lastName: str = Field(min_length=1, max_length=100)  # noqa: N815 - JSON
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    dateOfBirth: date  # noqa: N815 - JSON
    timezone: str


class User(NewUser):
    """What a client gets."""

    id: UUID


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the pool."""
    async with asyncpg.create_pool(sys.argv[1], min_size=2, max_size=20) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/users", status_code=201)
async def create(user: NewUser, request: Request) -> User:
    """Insert a user."""
    stored = User(id=uuid4(), **user.model_dump())
    values = (stored.firstName, stored.lastName, stored.email, stored.dateOfBirth, stored.timezone)
    await request.app.state.pool.execute(CREATE, stored.id, *values, datetime.now(UTC))
    return stored


@app.get("/users/{user_id}")
async def read(user_id: UUID, request: Request) -> User:
    """Select a user."""
    row = await request.app.state.pool.fetchrow(READ, user_id)
    return User(
        id=row["id"],
        firstName=row["first_name"],
        lastName=row["last_name"],
        email=row["email"],
        dateOfBirth=row["date_of_birth"],
        timezone=row["timezone"],
    )


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
