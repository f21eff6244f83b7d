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


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a registry, as far as an encoder is concerned."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return [self.family]


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
