"""How much work a template may be. It is counted in steps, not in time, so that the same message always comes out."""

from collections.abc import Mapping
from typing import Any, Final

from jinja2.runtime import Context

from birthday.content.errors import fail
from birthday.content.language import Language

RUN: Final = "_run"
"""The variable that holds the budget. No template can name it, because of the underscore."""
STEPS: Final = 3_000
"""Expressions of loops, and characters in filters: a step takes about a microsecond."""
MAX_TEXT: Final = 8_192
"""The most characters of a value that is put together."""
_CHARACTERS_A_STEP: Final = 16
FORMAT_STEPS: Final = 30
"""A date or a number as a language writes it."""


class Run:
    """One rendering: the language of its template, and the steps that are left."""

    __slots__ = ("_left", "language")

    def __init__(self, language: Language) -> None:
        """Begin with all steps."""
        self.language = language
        self._left = STEPS

    def spend(self, steps: int) -> None:
        """Take steps.

        Raises:
            RenderError: if none are left.
        """
        self._left -= steps
        if self._left < 0:
            fail("loops and filters are too much work")

    def spend_on(self, value: object, cost: int = 1) -> None:
        """Take the steps for looking at all of a value, times ``cost``."""
        if isinstance(value, str):
            self.spend(cost * (1 + len(value) // _CHARACTERS_A_STEP))
        else:
            self.spend(cost * (1 + len(value)) if isinstance(value, list | tuple | Mapping) else cost)


def run_of(context: Context) -> Run:
    """Return the rendering that a filter is part of."""
    run: Any = context.parent[RUN]
    assert isinstance(run, Run)  # noqa: S101 - ``Template.render`` has put it there
    return run
