"""``birthday keys`` from outside, and what running processes make of it."""

import asyncio
import json

import aiohttp

from tests.support.product import eventually
from tests.support.program import run, running


async def test_a_key_serves_and_a_revoked_one_stops_within_five_seconds_in_every_process(database_url: str) -> None:
    """Processes on an outside address start with a key of the database alone, and follow without a restart."""
    settings = {"DATABASE_URL": database_url}
    made = await run("keys", "create", "shop", "--scope", "read", **settings)
    assert made.status == 0
    [secret] = made.out.splitlines()
    assert secret.startswith("bday_")
    assert "scope read, works until it is revoked" in made.err
    outside = {"HOST": "0.0.0.0"}  # noqa: S104 - With a key it is meant to be reached.
    async with (
        running("--role", "api", **settings, **outside) as one,
        running("--role", "api", **settings) as other,
        aiohttp.ClientSession() as client,
    ):

        async def statuses(key: str) -> list[int]:
            found = []
            for program in (one, other):
                port = program.url.rpartition(":")[2]
                headers = {"Authorization": f"Bearer {key}"}
                async with client.get(f"http://127.0.0.1:{port}/users", headers=headers) as answer:
                    found.append(answer.status)
            return found

        async def answer(key: str, status: int) -> None:
            async def agreed() -> bool:
                return await statuses(key) == [status] * 2

            await eventually(agreed, f"every process answers {status}")

        assert await statuses(secret) == [200, 200]
        rotated = await run("keys", "rotate", "shop", "--json", **settings)
        successor = json.loads(rotated.out)
        async with asyncio.timeout(5):
            await answer(successor["key"], 200)
        assert await statuses(secret) == [200, 200]
        revoked = await run("keys", "revoke", secret.split("_")[1], **settings)
        assert revoked.status == 0
        async with asyncio.timeout(5):
            await answer(secret, 401)
        assert await statuses(successor["key"]) == [200, 200]
        listed = json.loads((await run("keys", "list", "--all", "--json", **settings)).out)
        assert [(key["name"], key["scope"], key["state"]) for key in listed] == [
            ("shop", "read", "revoked"),
            ("shop", "read", "active"),
        ]
        assert listed[0]["lastUsedAt"]
    assert secret.rpartition("_")[2] not in str(one.events + other.events + listed)


async def test_wrong_arguments_are_named(database_url: str) -> None:
    """With what is accepted; nothing is made, and without a key the API listens on no outside address."""
    settings = {"DATABASE_URL": database_url}
    cases: tuple[tuple[tuple[str, ...], dict[str, str], int, tuple[str, ...]], ...] = (
        (("keys", "create", "shop"), {}, 2, ("--scope", "read", "write", "admin")),
        (("keys", "create", "a b", "--scope", "read", "--expires", "90d"), {}, 2, ("'a b'", "accepted")),
        (("keys", "revoke", "12345678"), {}, 1, ("no key 12345678",)),
        (("--role", "api"), {"HOST": "0.0.0.0"}, 2, ("birthday keys create",)),  # noqa: S104 - It is refused.
    )
    ended = await asyncio.gather(*(run(*arguments, **settings, **more) for arguments, more, _, _ in cases))
    for finished, (_, _, status, words) in zip(ended, cases, strict=True):
        assert finished.status == status, finished
        assert all(word in finished.err for word in words), finished.err
    assert "0 in API_KEYS, 0 in the database" in (await run("check", **settings)).out
