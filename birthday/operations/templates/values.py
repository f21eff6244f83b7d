"""Whom a template is tried for: a user, or somebody made up."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from birthday.config import Settings
from birthday.core.dates import parse_date, years_since
from birthday.core.occasion import LeapDay, birthday_in
from birthday.core.template import Values
from birthday.store.templates import Person

_Date = date
_SAMPLE_ID: Final = "00000000-0000-7000-8000-000000000000"


def check_whole(value: object) -> object:
    """Let no truth value pass for a number."""
    if isinstance(value, bool | str):
        raise ValueError("a whole number is accepted")  # noqa: TRY004 - pydantic takes no TypeError
    return value


Whole = Annotated[int, BeforeValidator(check_whole)]


class KnownInput(BaseModel):
    """What is known of somebody made up, as JSON. What is not given is made up."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    first_name: str = Field(default="Ada", alias="firstName", max_length=100)
    last_name: str = Field(default="Lovelace", alias="lastName", max_length=100)
    email: str = Field(default="ada@example.com", max_length=254)
    locale: str | None = Field(default=None, max_length=35, description="A language tag, such as pt-BR.")
    attributes: dict[str, Any] = Field(default_factory=dict)
    date: Annotated[_Date, BeforeValidator(parse_date)] | None = Field(
        default=None, description="The date that is greeted; today if it is not given."
    )
    years: Whole | None = Field(default=30, description="The age, or the years of an anniversary; null: not known.")

    def known(self) -> dict[str, Any]:
        """Return what is given, for ``sample``."""
        return {name: getattr(self, name) for name in self.model_fields_set}


@dataclass(frozen=True, slots=True)
class Site:
    """What a template depends on besides its user. ``unsubscribe_url`` is an example; None without PUBLIC_URL."""

    leap_day: LeapDay = LeapDay.FEB28
    unsubscribe_url: str | None = None


def site_of(settings: Settings) -> Site:
    """Return the site of these settings."""
    base = settings.public_url
    return Site(settings.leap_day, None if base is None else f"{base.rstrip('/')}/unsubscribe/example")


def values_of(person: Person, message_type: str, today: date, site: Site) -> Values:
    """Return what a template can say to a user on the next occasion."""
    on = birthday_in(person.day, today.year, site.leap_day)
    if on < today:
        on = birthday_in(person.day, today.year + 1, site.leap_day)
    return Values(
        person.first_name,
        person.last_name,
        person.email,
        person.locale,
        message_type,
        on,
        years_since(person.day, on.year),
        person.attributes,
        _SAMPLE_ID,
        site.unsubscribe_url,
    )


def sample(message_type: str, today: date, site: Site, **known: Any) -> Values:  # noqa: ANN401 - a value for each name
    """Return what a template can say to somebody made up, of whom ``known`` is known."""
    made_up = KnownInput().model_dump() | {"date": today} | known
    return Values(**made_up, type=message_type, message_id=_SAMPLE_ID, unsubscribe_url=site.unsubscribe_url)
