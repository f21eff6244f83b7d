"""How much a run measures."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine to its end in the event loop that all benchmarks share."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. A quick run compares; a full one draws curves as well."""

    full: bool
    rounds: int
    messages: int
    rows: int
    load_seconds: float
    lone: int
    users: int


QUICK = Scale(full=False, rounds=3, messages=6_000, rows=100_000, load_seconds=2, lone=40, users=100_000)
FULL = Scale(full=True, rounds=5, messages=20_000, rows=100_000, load_seconds=3, lone=100, users=1_000_000)
