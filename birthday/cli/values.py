"""The values that options of several commands take: a day, an age, an instant."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click

from birthday.config import parse_duration
from birthday.core.dates import parse_date


class Age(click.ParamType[timedelta]):
    """A duration as the settings take it."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:  # noqa: ANN401
        """Return the duration, or fail with what is accepted."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"'{value}': {error}", param, ctx)


class Instant(click.ParamType[datetime]):
    """An instant in ISO 8601; UTC, unless it has an offset."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401
        """Return the instant, or fail with what is accepted."""
        try:
            at = datetime.fromisoformat(value)
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"'{value}': an instant such as 2026-11-28T09:00:00Z is accepted", param, ctx)


def parse_day(option: str, text: str, parse: Callable[[str], date] = parse_date) -> date:
    """Return the day that an option gives.

    Raises:
        BadParameter: if it is no calendar date.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(f"'{text}' {error}", param_hint=option) from None
