"""The command ``birthday forecast``: what falls due in the coming days."""

import sys
from datetime import datetime, timedelta

import click

from birthday.cli.command import errors
from birthday.cli.database import checked_pool, database_settings, run
from birthday.cli.render.forecast import print_forecast, write_json
from birthday.clock import SystemClock
from birthday.config import Settings
from birthday.core.forecast import DeliveryRate, Forecast
from birthday.operations.forecast import Forecaster


@click.command()
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 366), help="How far to look ahead.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Messages delivered per second.  [default: the best rate that lasted a minute in the last 7 days]",
)
@click.option("--by", type=click.Choice(["zone"]), help="Also count by time zone.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def forecast(days: int, rate: float | None, by: str | None, *, as_json: bool) -> None:
    """Show how many messages fall due in the coming days.

    The forecast counts by hour (UTC) from users and messages, with SEND_AT and LEAP_DAY as they are set here. It
    changes nothing. It shows how long the largest minute of each day takes at the measured delivery rate.
    """
    with errors():
        settings = database_settings()
        ahead, measured = run(_forecast(settings, SystemClock().now(), timedelta(days=days)))
    write = write_json if as_json else print_forecast
    write(ahead, DeliveryRate(rate, None) if rate else measured, sys.stdout, by_zone=by == "zone")


async def _forecast(settings: Settings, now: datetime, length: timedelta) -> tuple[Forecast, DeliveryRate | None]:
    async with checked_pool(settings, SystemClock()) as pool:
        forecaster = Forecaster(pool, settings.rules)
        return await forecaster.forecast(now, now + length), await forecaster.measure_rate(now)
