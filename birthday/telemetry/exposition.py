"""The page that Prometheus reads, written in pieces: all of it at once would hold the event loop up."""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

_OPENMETRICS: Final = "application/openmetrics-text"
_END: Final = b"# EOF\n"
_WHOLE_BOUND: Final = re.compile(rb'([{,]le="\d+)\.0"')
_PIECE_SECONDS: Final = 0.001
MAX_AGE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a registry, as far as an encoder is concerned."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return [self.family]


class Page:
    """The page, made at most once a second for each format: whoever asks more often gets the same one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Begin without one."""
        self._registry = registry
        self._pages: dict[bool, tuple[float, asyncio.Task[tuple[bytes, str]]]] = {}

    async def read(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type: OpenMetrics for whoever accepts that."""
        wanted = _OPENMETRICS in accept
        now = asyncio.get_running_loop().time()
        made_at, making = self._pages.get(wanted, (0.0, None))
        if making is None or now - made_at > MAX_AGE_SECONDS or (making.done() and making.exception() is not None):
            making = asyncio.create_task(expose(self._registry, _OPENMETRICS if wanted else ""))
            self._pages[wanted] = now, making
        # Who asked may be cancelled; the others still want the page.
        return await asyncio.shield(making)


async def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type: OpenMetrics for whoever accepts that.

    Whole bounds of buckets are written as Go's client does, ``le="2"``: Prometheus 2 compares them as text.
    """
    encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
    pieces = []
    resting_at = time.perf_counter()
    for family in registry.collect():
        # All that an encoder asks of a registry is to collect.
        page = encode(_Piece(family))
        pieces.append(_WHOLE_BOUND.sub(rb'\1"', page).removesuffix(_END))
        if time.perf_counter() - resting_at > _PIECE_SECONDS:
            await asyncio.sleep(0)
            resting_at = time.perf_counter()
    if content_type.startswith(_OPENMETRICS):
        pieces.append(_END)
    return b"".join(pieces), content_type
