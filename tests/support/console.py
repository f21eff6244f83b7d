"""A browser without scripts, for the console: it keeps cookies, and sends forms as pages of the console do."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.support.api import Api


@dataclass(frozen=True, slots=True)
class Shown:
    """What a browser shows after all redirects. ``path`` is its address, with the query."""

    status: int
    text: str
    path: str
    headers: Mapping[str, str]


class Browser:
    """One visitor of the console of ``api``."""

    def __init__(self, api: Api, client: aiohttp.ClientSession) -> None:
        """Begin without cookies."""
        self.api = api
        self.client = client

    async def get(self, path: str, headers: Mapping[str, str] | None = None, *, follow: bool = True) -> Shown:
        """Open a page."""
        return await self._send("GET", path, None, headers, follow=follow)

    async def post(
        self,
        path: str,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        follow: bool = True,
    ) -> Shown:
        """Send a form as a page of the console does; ``headers`` may say that it is of another site."""
        own = {"Origin": self.api.url, "Sec-Fetch-Site": "same-origin"}
        return await self._send("POST", path, fields or {}, headers if headers is not None else own, follow=follow)

    async def confirm(self, path: str, fields: Mapping[str, str] | None = None) -> Shown:
        """Send a form and press "Yes" on the page that asks."""
        asked = await self.post(path, fields)
        assert (asked.status, 'name="confirmed"' in asked.text) == (200, True), asked.text
        return await self.post(path, {**(fields or {}), "confirmed": "yes"})

    async def sign_in(self, key: str) -> Shown:
        """Sign in; the answer is the overview if the key works."""
        return await self.post("/console/sign-in", {"key": key, "next": "/console"})

    def cookie(self, name: str = "birthday_session") -> str | None:
        """Return the value of a cookie."""
        return next((cookie.value for cookie in self.client.cookie_jar if cookie.key == name), None)

    def set_cookie(self, value: str, name: str = "birthday_session") -> None:
        """Set a cookie, as whoever has stolen or forged it."""
        self.client.cookie_jar.clear(lambda cookie: cookie.key == name)
        self.client.cookie_jar.update_cookies({name: value})

    async def _send(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        *,
        follow: bool,
    ) -> Shown:
        async with self.client.request(
            method, self.api.url + path, data=fields, headers=headers, allow_redirects=follow
        ) as answer:
            return Shown(answer.status, await answer.text(), answer.url.path_qs, answer.headers)


@asynccontextmanager
async def browsing(api: Api, key: str | None = None) -> AsyncIterator[Browser]:
    """Open a browser; with ``key`` it has signed in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        browser = Browser(api, client)
        if key is not None:
            shown = await browser.sign_in(key)
            assert (shown.status, shown.path) == (200, "/console"), shown.text
        yield browser


async def add_ada(api: Api) -> None:
    """Create a user whose birthday is today, with the key of somebody who may."""
    person = {"firstName": "Ada", "lastName": "L", "email": "a@example.com"}
    day = {"dateOfBirth": "1990-03-01", "timezone": "UTC"}
    answer = await api.post("/users", person | day, {"X-API-Key": "key-of-ada"})
    assert answer.status == 201, answer.body
