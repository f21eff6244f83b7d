"""The output of ``birthday preview``, as a table or JSON."""

from collections.abc import Iterator, Sequence
from datetime import date, tzinfo
from typing import Any

import click

from birthday.core.dates import years_since
from birthday.core.occasion import Occasion


def print_preview(occasions: Sequence[Occasion], born: date, zone: tzinfo) -> None:
    """Print a line for each birthday."""
    # Imported here, so that JSON output does not wait for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table("date", "local time", "UTC", "age", box=None)
    for row in _rows(occasions, born, zone):
        table.add_row(row["date"], row["local"], row["utc"], "unknown" if row["age"] is None else str(row["age"]))
    Console().print(table)


def write_json(occasions: Sequence[Occasion], born: date, zone: tzinfo) -> None:
    """Print an array with an object for each birthday."""
    import orjson  # noqa: PLC0415 - as above

    click.echo(orjson.dumps([*_rows(occasions, born, zone)]).decode())


def _rows(occasions: Sequence[Occasion], born: date, zone: tzinfo) -> Iterator[dict[str, Any]]:
    for occasion in occasions:
        yield {
            "date": occasion.on.isoformat(),
            "local": occasion.due_at.astimezone(zone).isoformat(),
            "utc": occasion.due_at.isoformat().replace("+00:00", "Z"),
            "age": years_since(born, occasion.year),
        }
