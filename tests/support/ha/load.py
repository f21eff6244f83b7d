"""A steady flow of users who are greeted at once, and the gaps that a fault leaves in it."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count, pairwise
from time import monotonic

import aiohttp

from tests.support.chaos import Receiver
from tests.support.message_service import Answer, Received
from tests.support.product import eventually

PER_SECOND = 8
ANSWER_SECONDS = 15.0
"""How long a client waits for an answer: longer than the API takes to say that it cannot help now."""
AGAIN_SECONDS = 0.2
KEY = "key-of-lab"


class Deliveries(Receiver):
    """A message service that accepts everything, and knows when."""

    def __init__(self) -> None:
        """Nothing has arrived yet."""
        super().__init__()
        self.times: dict[str, float] = {}
        """For each e-mail address, when the first message to it was accepted."""

    def __call__(self, received: Received) -> Answer:
        """Accept a message."""
        if received.body:
            self.times.setdefault(received.json["email"], received.monotonic)
        return super().__call__(received)


class Flow:
    """Clients of the API that create users, each of whom has a birthday today, and repeat a request until it succeeds.

    A request is repeated with its Idempotency-Key, so each user is created once.
    """

    def __init__(self, urls: Sequence[str], deliveries: Deliveries) -> None:
        """Take the URLs of API processes, which are asked in turn."""
        self.begun: dict[str, float] = {}
        self.created: dict[str, float] = {}
        """For each e-mail address, when its first request was sent, and when the API said that the user exists."""
        self.refusals: list[str] = []
        """What the API said instead, in the order of time."""
        self.deliveries = deliveries
        self._urls = urls
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Create users until ``stop``, and return when each exists."""
        limits = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(ANSWER_SECONDS)) as session,
            asyncio.TaskGroup() as clients,
        ):
            for number in count():
                clients.create_task(self._create(session, number))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), 1 / PER_SECOND)
                    return

    def stop(self) -> None:
        """Begin with no further user."""
        self._stopping.set()

    async def wait_until_served(self, since: float, seconds: float) -> None:
        """Wait until a user whose creation was first asked for after ``since`` has been created, and greeted."""

        async def is_served() -> bool:
            return any(
                begun > since and email in self.created and email in self.deliveries.times
                for email, begun in self.begun.items()
            )

        await eventually(is_served, "a new user is created and greeted", seconds)

    def api_gap(self, since: float) -> float:
        """Return the longest time without a success of the API, of those that ended after ``since``, in seconds."""
        return longest_gap(self.created.values(), since)

    def delivery_gap(self, since: float) -> float:
        """Return the longest time without a delivery, of those that ended after ``since``, in seconds."""
        return longest_gap(self.deliveries.times.values(), since)

    async def _create(self, session: aiohttp.ClientSession, number: int) -> None:
        email = f"{number}@example.com"
        today = datetime.now(UTC).date()
        user = {
            "firstName": "Ada",
            "lastName": str(number),
            "email": email,
            "dateOfBirth": f"1992-{today:%m-%d}",
            "timezone": "UTC",
        }
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": f'"{number}"'}
        self.begun[email] = monotonic()
        for attempt in count(number):
            url = self._urls[attempt % len(self._urls)]
            try:
                async with session.post(f"{url}/users", json=user, headers=headers) as answer:
                    if answer.status == 201:
                        self.created[email] = monotonic()
                        return
                    self.refusals.append(f"{answer.status} {await answer.text()}")
                    assert answer.status in {409, 429, 503}, self.refusals[-1]
            except (aiohttp.ClientError, TimeoutError) as error:
                self.refusals.append(repr(error))
            await asyncio.sleep(AGAIN_SECONDS)


class Readiness:
    """What ``/ready`` of some processes has said, and when."""

    def __init__(self, urls: dict[str, str]) -> None:
        """Take the URL of each process by its name."""
        self.answers: dict[str, list[tuple[float, int | None]]] = {name: [] for name in urls}
        self._urls = urls

    async def run(self) -> None:
        """Ask all processes, several times a second."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
            asyncio.TaskGroup() as watchers,
        ):
            for name, url in self._urls.items():
                watchers.create_task(self._watch(session, name, url))

    def red(self, since: float) -> dict[str, tuple[float, float]]:
        """Return, for each process that was not ready after ``since``, when it first and last said so."""
        found = {}
        for name, answers in self.answers.items():
            times = [at for at, status in answers if status == 503 and at > since]
            if times:
                found[name] = times[0], times[-1]
        return found

    def forget(self, name: str) -> None:
        """Ask a process no more."""
        del self.answers[name]

    async def wait_until_ready(self, seconds: float) -> None:
        """Wait until all processes are ready, at the next question."""
        since = monotonic()

        async def is_ready() -> bool:
            return all(
                answers and answers[-1][0] > since and answers[-1][1] == 200 for answers in self.answers.values()
            )

        await eventually(is_ready, "all processes are ready", seconds)

    async def _watch(self, session: aiohttp.ClientSession, name: str, url: str) -> None:
        while name in self.answers:
            status = None
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/ready") as answer:
                    status = answer.status
            if name in self.answers:
                self.answers[name].append((monotonic(), status))
            await asyncio.sleep(0.2)


def longest_gap(times: Iterable[float], since: float) -> float:
    """Return the longest time between two neighbours, of which the later one is after ``since``."""
    return max((after - before for before, after in pairwise(sorted(times)) if after > since), default=0.0)
