"""What messages say: templates by message type and locale, their versions, and which version is active."""

from birthday.core.message import BIRTHDAY
from birthday.store.users import Connection


async def read_types(connection: Connection) -> list[str]:
    """Return the message types that are planned: birthday, then the others that have a published template, by name."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT message_type FROM active_templates WHERE version > 0 AND message_type <> $1
        ORDER BY message_type
        """,
        BIRTHDAY,
    )
    return [BIRTHDAY, *(row["message_type"] for row in rows)]
