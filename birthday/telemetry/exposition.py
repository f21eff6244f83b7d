"""The page that Prometheus reads. It is made in pieces, because making it at once would block the event loop."""

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
    """One metric family, with the only method of a registry that an encoder uses."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return [self.family]


class Page:
    """The page, made at most once a second for each format. Requests in between get the same page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._pages: dict[bool, tuple[float, asyncio.Task[tuple[bytes, str]]]] = {}

    async def read(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type: OpenMetrics if ``accept`` names it, otherwise Prometheus text."""
        wanted = _OPENMETRICS in accept
        now = asyncio.get_running_loop().time()
        made_at, making = self._pages.get(wanted, (0.0, None))
        if making is None or now - made_at > MAX_AGE_SECONDS or (making.done() and making.exception() is not None):
            making = asyncio.create_task(expose(self._registry, _OPENMETRICS if wanted else ""))
            self._pages[wanted] = now, making
        # If this request is cancelled, others may still wait for the page.
        return await asyncio.shield(making)


async def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the page and its content type: OpenMetrics if ``accept`` names it, otherwise Prometheus text.

    Whole bounds of buckets are written as by Go's client, ``le="2"``, because Prometheus 2 compares them as text.
    """
    encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
    pieces = []
    resting_at = time.perf_counter()
    for family in registry.collect():
        # An encoder calls only ``collect`` of a registry.
        page = encode(_Piece(family))
        pieces.append(_WHOLE_BOUND.sub(rb'\1"', page).removesuffix(_END))
        if time.perf_counter() - resting_at > _PIECE_SECONDS:
            await asyncio.sleep(0)
            resting_at = time.perf_counter()
    if content_type.startswith(_OPENMETRICS):
        pieces.append(_END)
    return b"".join(pieces), content_type
