"""What each field of a user accepts, as types for pydantic."""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from birthday.core.address import MAX_CHARACTERS, parse_address
from birthday.core.dates import parse_birthday, parse_date
from birthday.core.document import is_deeper
from birthday.core.message import BIRTHDAY
from birthday.core.text import BIDI, CONTROL, INVISIBLE, show
from birthday.core.zone import OFFSETS_IN_USE, check_offset, load_zone
from birthday.errors import InvalidInputError

MAX_ATTRIBUTES_BYTES: Final = 4096
MAX_ATTRIBUTES_DEPTH: Final = 8
MAX_ANNIVERSARIES: Final = 20
MAX_EXTERNAL_ID: Final = 200
_EXPONENT_FROM: Final = 1e16
"""From here on, a float is written with an exponent."""
_MIN_INTEGER: Final = -(2**63)
_MAX_INTEGER: Final = 2**64
"""The integers that orjson reads as such: from the first on, up to before the second. Others become floats."""
TYPE_PATTERN: Final = "^[a-z][a-z0-9-]{0,39}$"

# At least one visible character. The pattern works in every dialect of regular expressions that reads JSON Schema.
# Characters that join or separate letters and emoji (ZWJ, ZWNJ) may stand beside it, because some scripts need them.
_ANY = rf"[^{CONTROL}{BIDI}]*"
_VISIBLE = rf"{_ANY}[^\s{CONTROL}{INVISIBLE}]{_ANY}"
# Visible characters only, with blanks between them.
_WORD = rf"[^\s{CONTROL}{INVISIBLE}]+"
EXTERNAL_ID_PATTERN: Final = f"^{_WORD}( +{_WORD})*$"
# RFC 5646, section 2.1, with a language of two or three letters: others are not registered.
_ALNUM = "[A-Za-z0-9]"
_SEPARATOR = "[-_]"
LOCALE_PATTERN: Final = (
    rf"^[A-Za-z]{{2,3}}({_SEPARATOR}[A-Za-z]{{3}}){{0,3}}({_SEPARATOR}[A-Za-z]{{4}})?"
    rf"({_SEPARATOR}([A-Za-z]{{2}}|[0-9]{{3}}))?({_SEPARATOR}({_ALNUM}{{5,8}}|[0-9]{_ALNUM}{{3}}))*"
    rf"({_SEPARATOR}[A-WYZa-wyz0-9]({_SEPARATOR}{_ALNUM}{{2,8}})+)*({_SEPARATOR}[Xx]({_SEPARATOR}{_ALNUM}{{1,8}})+)?$"
)
_LOCALE_RULE = re.compile(LOCALE_PATTERN)
DAY_PATTERN = "(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_DATE_PATTERN = (
    rf"(19|20)[0-9]{{2}}-{DAY_PATTERN}"
    r"([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])?)?"
)
"""A date, or a date-time that begins with one. It lets 31 February pass, which is refused all the same."""


def _check_zone(name: str) -> str:
    try:
        load_zone(name)
    except InvalidInputError as error:
        raise ValueError(error.fields[0].detail) from None
    return name


def _check_offset(minutes: int) -> int:
    try:
        check_offset(minutes)
    except InvalidInputError as error:
        raise ValueError(error.fields[0].detail) from None
    return minutes


def _check_address(text: str) -> str:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"is not an e-mail address: {error}; one such as ada@example.com is accepted") from None


def check_locale(text: str) -> str:
    """Return a language tag in the usual case: ``pt-BR``, ``zh-Hant-TW``. An underscore counts as a hyphen."""
    if not _LOCALE_RULE.fullmatch(text):
        raise ValueError(f"{show(text)} is not a locale; a language tag such as de, pt-BR or zh-Hant is accepted")
    language, *rest = text.lower().replace("_", "-").split("-")
    tag, plain = language, True
    for part in rest:
        # What follows a single character is an extension, which is written in small letters.
        plain = plain and len(part) > 1
        cased = part.title() if len(part) == 4 and part.isalpha() else part.upper() if len(part) == 2 else part
        tag += f"-{cased if plain else part}"
    return tag


def _check_attributes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        # pydantic takes no TypeError.
        raise ValueError('is not a JSON object; one such as {"team": "blue"} is accepted')  # noqa: TRY004
    size = len(orjson.dumps(value))
    if size > MAX_ATTRIBUTES_BYTES:
        raise ValueError(f"takes {size} bytes as JSON; at most {MAX_ATTRIBUTES_BYTES} are accepted")
    if is_deeper(value, MAX_ATTRIBUTES_DEPTH):
        raise ValueError(f"is nested too deep: at most {MAX_ATTRIBUTES_DEPTH} levels are accepted")
    if _has_null_character(value):
        raise ValueError("contains the character U+0000; text without it is accepted")
    stored: dict[str, Any] = _as_stored(value)
    return stored


def _as_stored(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON as it is read from a ``jsonb``, so that tags and comparisons hold."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return {name: _as_stored(value[name]) for name in names}
    if isinstance(value, list):
        return [_as_stored(one) for one in value]
    return _number_as_stored(value) if isinstance(value, float) else value


def _number_as_stored(number: float) -> float:
    """Return the number that PostgreSQL's decimals make of one: without exponent, and without a negative zero."""
    if _EXPONENT_FROM <= abs(number) < _MAX_INTEGER:
        # Digits as they are written, not int(number), which has others behind the first seventeen.
        integer = int(Decimal(repr(number)))
        return integer if _MIN_INTEGER <= integer < _MAX_INTEGER else number
    return number + 0.0


def _has_null_character(value: object) -> bool:
    """PostgreSQL cannot store it."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_null_character(name) or _has_null_character(inner) for name, inner in value.items())
    return isinstance(value, list) and any(map(_has_null_character, value))


def is_type(name: str) -> bool:
    """Say whether this can be the name of an occasion type other than the birthday."""
    return name != BIRTHDAY and re.fullmatch(TYPE_PATTERN, name) is not None


def _check_type(name: str) -> str:
    if not is_type(name):
        raise ValueError(
            f"{show(name)} cannot be the name of a yearly date; one such as work-anniversary is accepted: at most 40 "
            f"of a to z, 0 to 9 and -, of which the first is a letter; the {BIRTHDAY} is given as dateOfBirth"
        )
    return name


def _check_count(value: object) -> object:
    """Count the dates before each is checked, because a line of an import has room for 50,000."""
    if isinstance(value, dict) and len(value) > MAX_ANNIVERSARIES:
        raise ValueError(f"has more dates than the {MAX_ANNIVERSARIES} that are accepted")
    return value


Name = Annotated[str, Field(min_length=1, max_length=100, pattern=f"^{_VISIBLE}$")]
NamePrefix = Annotated[str, Field(min_length=1, max_length=200, pattern=f"^{_ANY}$")]
NameOrNothing = Annotated[str, Field(max_length=100, pattern=f"^({_VISIBLE})?$")]
Email = Annotated[
    str, Field(max_length=MAX_CHARACTERS, json_schema_extra={"format": "idn-email"}), AfterValidator(_check_address)
]
Birthday = Annotated[
    date,
    BeforeValidator(parse_birthday),
    WithJsonSchema({"type": "string", "pattern": f"^({_DATE_PATTERN}|--{DAY_PATTERN})$"}),
]
Zone = Annotated[str, Field(max_length=64), AfterValidator(_check_zone)]
Offset = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": min(OFFSETS_IN_USE), "maximum": max(OFFSETS_IN_USE)}),
    AfterValidator(_check_offset),
]
ExternalId = Annotated[str, Field(min_length=1, max_length=MAX_EXTERNAL_ID, pattern=EXTERNAL_ID_PATTERN)]
Locale = Annotated[
    str, Field(max_length=35, json_schema_extra={"pattern": LOCALE_PATTERN}), AfterValidator(check_locale)
]
Attributes = Annotated[
    Mapping[str, Any],
    PlainValidator(_check_attributes),
    WithJsonSchema({"type": "object", "additionalProperties": True}),
]
TypeName = Annotated[str, BeforeValidator(_check_type)]
Anniversaries = Annotated[
    dict[
        TypeName,
        Annotated[
            date, BeforeValidator(parse_date), WithJsonSchema({"type": "string", "pattern": f"^{_DATE_PATTERN}$"})
        ],
    ],
    Field(max_length=MAX_ANNIVERSARIES),
    BeforeValidator(_check_count),
]
