"""How long statements take, by type of statement, and which ones take too long."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from birthday.telemetry.metrics import Metrics

log = structlog.get_logger()

SLOW_SECONDS: Final = 0.1

_COMMENT: Final = re.compile(r"--[^\n]*")
_WRITE: Final = re.compile(r"(?<!for )(?<!no key )(?<!do )\b(insert into|update|delete from)\b")
_TRANSACTION: Final = ("begin", "commit", "rollback", "savepoint", "release", "start transaction")
_RESET: Final = "pg_advisory_unlock_all"
_KNOWN_TEXTS: Final = 1000
_SHOWN: Final = 200


def statement_observer(metrics: Metrics) -> Callable[[str, float], None]:
    """Return a function that counts a statement and its seconds, and logs a slow one, without its parameters."""

    # Every statement is static text, so their number is limited.
    @lru_cache(_KNOWN_TEXTS)
    def instruments(text: str) -> tuple[Histogram, Counter, str]:
        kind = query_type(text)
        return metrics.database_query_duration.labels(kind), metrics.database_slow_queries.labels(kind), kind

    def observe(text: str, seconds: float) -> None:
        duration, slow, kind = instruments(text)
        duration.observe(seconds)
        if seconds > SLOW_SECONDS:
            slow.inc()
            shown = " ".join(text.split())[:_SHOWN]
            log.info("database.slow_query", query_type=kind, seconds=round(seconds, 3), query=shown)

    return observe


def query_type(text: str) -> str:
    """Return the type of a statement, one of ``QUERY_TYPES``. If a WITH clause changes rows, the change is the type."""
    words = " ".join(_COMMENT.sub("", text).lower().split())
    if words.startswith(_TRANSACTION):
        return "transaction"
    if _RESET in words or not words.startswith(("select", "with", "insert", "update", "delete")):
        return "other"
    write = _WRITE.search(words)
    return write[1].split()[0] if write else "select"
