"""The smoke test of an installation, over HTTP as its clients: health, versions, metrics, a user who comes and goes.

It greets nobody: the birthday of the test user is half a year away, and the user is removed at the end, also if the
test fails or is cancelled.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final

import aiohttp
import orjson

_SECONDS: Final = 15
_TRIES: Final = 5
"""How often the version is asked for, on a new connection each time: a load balancer has several processes."""
_AHEAD: Final = timedelta(days=183)
_SERIES: Final = ("birthday_scheduler_messages_scheduled_total", "birthday_scheduler_messages_delivered_total")
_VERSION: Final = re.compile(r'^birthday_scheduler_build_info\{[^}]*version="([^"]*)"', re.MULTILINE)
_ADVICE: Final = {
    401: "give an API key with --key",
    403: "give a key of the scope write with --key; without any key, ask the host of the API itself, as localhost",
    404: "is this the address of a process with the role api, and not of something before it?",
    429: "RATE_LIMIT is too low for this; wait and try again",
    503: "something that it needs is away: 'birthday check' and GET /health/detailed say what",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found. ``todo`` says what to do about it; it is empty if all is well."""

    name: str
    says: str
    todo: str = ""


class _FailedError(Exception):
    """A check has failed: what was found, and what to do."""

    def __init__(self, says: str, todo: str) -> None:
        super().__init__(says)
        self.says = says
        self.todo = todo


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str

    def json(self) -> Any:  # noqa: ANN401 - whatever it is
        try:
            return orjson.loads(self.text)
        except ValueError:
            raise _FailedError("the answer is not JSON", _ADVICE[404]) from None

    def expect(self, status: int) -> None:
        """Make sure that this is the status."""
        if self.status == status:
            return
        try:
            detail = f": {orjson.loads(self.text)['detail']}"
        except (ValueError, KeyError, TypeError):
            detail = ""
        todo = _ADVICE.get(self.status, "the log of the API says why")
        raise _FailedError(f"{status} is expected, and the answer is {self.status}{detail}", todo)


@dataclass(frozen=True, slots=True)
class _Client:
    session: aiohttp.ClientSession
    url: str

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Answer:
        """Send a request on a connection of its own."""
        try:
            async with self.session.request(method, self.url + path, json=body, allow_redirects=False) as response:
                return _Answer(response.status, await response.text(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or f"no answer within {_SECONDS} s"
            todo = "start the API, or check URL, name service, certificate and firewall"
            raise _FailedError(reason, todo) from None

    async def expect(self, method: str, path: str, status: int, body: Mapping[str, Any] | None = None) -> _Answer:
        """Send a request, and make sure that its answer has this status."""
        answer = await self.ask(method, path, body)
        answer.expect(status)
        return answer


async def smoke(url: str, key: str | None, version: str, now: datetime, tell: Callable[[Finding], None]) -> bool:
    """Try the installation at ``url``, and say whether all is well. ``tell`` is given each finding as it is made.

    ``version`` is the one that all processes should run. ``key`` needs the scope write; with admin, the test user is
    erased too.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    findings: list[Finding] = []

    async def check(name: str, attempt: Callable[[], Awaitable[str]]) -> bool:
        try:
            finding = Finding(name, await attempt())
        except _FailedError as error:
            finding = Finding(name, error.says, error.todo)
        findings.append(finding)
        tell(finding)
        return not finding.todo

    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        client = _Client(session, url.rstrip("/"))
        if not await check("alive", lambda: _alive(client)):
            return False
        await check("ready", lambda: _ready(client))
        await check("health", lambda: _health(client))
        await check("versions", lambda: _versions(client, version))
        await check("metrics", lambda: _metrics(client, version))
        user = _TestUser(client, (now + _AHEAD).date())
        try:
            if await check("user", user.create):
                await check("preview", user.preview)
                await check("explain", user.explain)
        finally:
            if user.may_exist:
                await check("removal", user.remove)
    return not any(finding.todo for finding in findings)


async def _alive(client: _Client) -> str:
    await client.expect("GET", "/alive", 200)
    return f"{client.url} answers"


async def _ready(client: _Client) -> str:
    answer = await client.ask("GET", "/ready")
    if answer.status == 503:
        report = answer.json()
        bad = [name for name, word in report.get("checks", {}).items() if word != "healthy"]
        what = ", ".join(bad) or ("it is draining" if report.get("draining") else "no reason given")
        raise _FailedError(f"not ready: {what}", _ADVICE[503])
    answer.expect(200)
    return "all that it needs can be used"


async def _health(client: _Client) -> str:
    report = (await client.expect("GET", "/health", 200)).json()
    if report["status"] != "healthy":
        bad = ", ".join(name for name, word in report["checks"].items() if word != "healthy")
        raise _FailedError(f"{report['status']}: {bad} {report.get('reason', '')}".rstrip(), _ADVICE[503])
    paused = f"; paused: {', '.join(report['paused'])}" if report["paused"] else ""
    return f"healthy{paused}"


async def _versions(client: _Client, version: str) -> str:
    answers = [await client.expect("GET", "/health", 200) for _ in range(_TRIES)]
    _compare({answer.json()["version"] for answer in answers}, version)
    return f"{version} in {_TRIES} answers"


async def _metrics(client: _Client, version: str) -> str:
    page = (await client.expect("GET", "/metrics", 200)).text
    missing = [name for name in _SERIES if not re.search(rf"^{name}\b", page, re.MULTILINE)]
    if missing:
        raise _FailedError(f"{', '.join(missing)} not found", _ADVICE[404])
    _compare(set(_VERSION.findall(page)), version)
    return f"{sum(not line.startswith('#') for line in page.splitlines()):,} series"


def _compare(found: set[str], version: str) -> None:
    if found != {version}:
        todo = "restart what still runs another release, or run this command of the release that was deployed"
        raise _FailedError(f"{' and '.join(sorted(found))} found, {version} is expected", todo)


@dataclass
class _TestUser:
    """A user of nobody, whose birthday is on ``day``, half a year away."""

    client: _Client
    day: date
    mark: str = field(default_factory=lambda: f"smoke-test-{secrets.token_hex(8)}")
    user_id: str | None = None
    may_exist: bool = False

    def __post_init__(self) -> None:
        if (self.day.month, self.day.day) == (2, 29):
            self.day += timedelta(days=1)

    async def create(self) -> str:
        self.may_exist = True
        body = {
            "firstName": "Smoke",
            "lastName": "Test",
            "email": f"{self.mark}@example.com",
            "externalId": self.mark,
            "dateOfBirth": self.day.replace(year=1990).isoformat(),
            "timezone": "UTC",
        }
        answer = await self.client.ask("POST", "/users", body)
        # After a refusal there is nobody to remove. After a failure there may be.
        self.may_exist = not 400 <= answer.status < 500
        answer.expect(201)
        self.user_id = answer.json()["id"]
        return f"{self.mark}@example.com was made"

    async def preview(self) -> str:
        due = str((await self.client.expect("GET", f"/users/{self.user_id}", 200)).json()["nextMessageAt"])
        if not due.startswith(self.day.isoformat()):
            todo = "compare SEND_AT and the time-zone data of all processes: 'birthday status'"
            raise _FailedError(f"the greeting is due at {due}, {self.day} is expected", todo)
        return f"the greeting would be due at {due}"

    async def explain(self) -> str:
        path = f"/users/{self.user_id}/explain?year={self.day.year}&type=birthday"
        [occasion] = (await self.client.expect("GET", path, 200)).json()["occasions"]
        # A longer PLAN_HORIZON than half a year has planned it by now.
        if occasion["outcome"] not in {"not-yet", "scheduled", "paused"}:
            raise _FailedError(f"{occasion['outcome']}: {occasion['reason']}", "the log of the API says more")
        return f"{occasion['outcome']}: {occasion['reason']}"

    async def remove(self) -> str:
        """Delete the user, and erase what is held on them if the key may do that."""
        self.may_exist = False
        path = f"/users/by-external-id/{self.mark}"
        try:
            answer = await self.client.ask("DELETE", path)
            if answer.status == 404:
                return "the test user does not exist"
            answer.expect(204)
            if self.user_id is None:
                return "the test user was deleted"
            (await self.client.ask("GET", f"/users/{self.user_id}")).expect(404)
            erased = await self.client.ask("POST", f"/users/{self.user_id}/erase")
            if erased.status == 403:
                return "the test user was deleted, and not erased: that needs a key of the scope admin"
            erased.expect(200)
        except _FailedError as error:
            raise _FailedError(error.says, f"{error.todo}; then delete the test user: DELETE {path}") from None
        return "the test user was deleted and erased"
