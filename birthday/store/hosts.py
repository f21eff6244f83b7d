"""Connect to one of several hosts of a database. A host that does not answer delays this for half a second only."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

import asyncpg

from birthday.store.connection import DATABASE_ERRORS, is_away

HEAD_START_SECONDS: Final = 0.5
"""After this time the next host is tried too, even if the one before may still answer. The first success counts."""

Attempt = asyncio.Task[asyncpg.Connection]


class Hosts:
    """The hosts of one database. The one that was connected to last is tried first."""

    def __init__(self, hosts: Sequence[tuple[str, int | None]]) -> None:
        """Take names or addresses with their ports, in order of preference; None is the default port."""
        self._hosts = list(hosts)

    async def connect(self, dsn: str, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - those of asyncpg.connect
        """Connect to the first host that offers the wanted session; ``timeout`` is the time limit of each host.

        Raises:
            ConnectionError: if no host does; the text says why, for each of them. If all refuse us, one's own error.
        """
        waiting = list(self._hosts)
        running: dict[Attempt, tuple[str, int | None]] = {}
        errors: dict[str, Exception] = {}
        try:
            while waiting or running:
                if waiting:
                    host, port = waiting.pop(0)
                    running[asyncio.create_task(asyncpg.connect(dsn, host=host, port=port, **options))] = host, port
                head_start = HEAD_START_SECONDS if waiting else None
                ended, _ = await asyncio.wait(running, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
                for attempt in ended:
                    host, port = tried = running[attempt]
                    try:
                        connection = attempt.result()
                    except DATABASE_ERRORS as error:
                        errors[host if port is None else f"{host}:{port}"] = error
                        del running[attempt]
                    else:
                        del running[attempt]
                        self._hosts.sort(key=lambda known: known != tried)
                        return connection
        finally:
            await _give_up(running)
        if not any(map(is_away, errors.values())):
            raise next(iter(errors.values()))
        raise ConnectionError("; ".join(f"{place}: {_reason(error)}" for place, error in errors.items()))


def _reason(error: Exception) -> str:
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "not the kind of server that target_session_attrs asks for: a standby, or read-only"
    return str(error) or "no answer in time"


async def _give_up(attempts: Collection[Attempt]) -> None:
    """End attempts whose result is not needed any more."""
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, asyncpg.Connection):
            result.terminate()
