"""Opt-out from outside: the link of an e-mail that arrived, posted as a mail program posts it."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from tests.support.mail_server import MailServer
from tests.support.product import eventually
from tests.support.program import running


async def test_one_click_in_a_delivered_mail_stops_everything(
    pool: asyncpg.Pool, database_url: str, mail_server: MailServer
) -> None:
    """The person is on the list, and stays there when imported or created again: no second mail goes out."""
    now = datetime.now(UTC)
    ada = {"firstName": "Ada", "email": "ada@example.com", "timezone": "UTC"}
    settings = {
        "DATABASE_URL": database_url,
        "SMTP_URL": mail_server.url,
        "SMTP_FROM": "hello@example.com",
        "PUBLIC_URL": "https://greetings.example.com",
        "SEND_AT": "00:00",
    }
    async with running(**settings) as program, aiohttp.ClientSession() as session:

        async def create(year: int) -> dict[str, object]:
            born = {"dateOfBirth": f"{year}-{now:%m-%d}"}
            async with session.post(f"{program.url}/users", json=ada | born) as response:
                assert response.status == 201
                user: dict[str, object] = await response.json()
                return user

        async def has_mail() -> bool:
            return bool(mail_server.mails)

        user = await create(1992)
        await eventually(has_mail, "the mail has arrived")
        headers = mail_server.mails[0].message
        assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        link = "".join(str(headers["List-Unsubscribe"]).strip("<>").split())
        assert link.startswith(settings["PUBLIC_URL"])
        data = {"List-Unsubscribe": "One-Click"}
        async with session.post(program.url + urlsplit(link).path, data=data) as response:
            assert response.status == 200
        async with session.delete(f"{program.url}/users/{user['id']}") as response:
            assert response.status == 204
        # With another date of birth, because the same person would get nothing more this year anyway.
        assert (await create(1993))["suppressed"] is True

        async def is_cancelled() -> bool:
            found = await pool.fetchval("SELECT count(*) FROM message_logs WHERE error_detail = 'suppressed'")
            return bool(found)

        await eventually(is_cancelled, "the second message is cancelled")
    assert len(mail_server.mails) == 1
