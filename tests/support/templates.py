"""Templates for tests that are not about publishing them."""

import asyncpg

from birthday.core.template import TemplateKey
from tests.support.product import parse

AT = parse("2027-01-01T00:00:00Z")


async def activate(pool: asyncpg.Pool, key: TemplateKey) -> None:
    """Make a version active, whether it exists or not."""
    await pool.execute(
        """
        INSERT INTO active_templates VALUES ($1, $2, $3, $4, 'test')
        ON CONFLICT (message_type, locale) DO UPDATE SET version = $3
        """,
        *key,
        AT,
    )


async def store(pool: asyncpg.Pool, key: TemplateKey, message: str) -> None:
    """Store a version, and make it active."""
    await pool.execute("INSERT INTO templates VALUES ($1, $2, $3, $4, NULL, NULL, NULL, $5, 'test')", *key, message, AT)
    await activate(pool, key)
