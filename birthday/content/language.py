"""Dates, numbers and ordinals as a language writes them: Babel, whose data are those of Unicode's CLDR."""

from datetime import date
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton
from babel.numbers import format_decimal

from birthday.content.errors import fail
from birthday.core.template import DEFAULT

MAX_NUMBER: Final = 10**15
_MAX_PATTERN: Final = 50
_NAMED_FORMATS: Final = frozenset({"short", "medium", "long", "full"})
_KEPT: Final = 1_000
_DEFAULT_LANGUAGE: Final = "en"

# Before and after the number, by CLDR's plural category for ordinals. Languages in which it depends on the noun are
# missing.
_ORDINALS: Final[dict[str, dict[str, tuple[str, str]]]] = (
    {
        "en": {"one": ("", "st"), "two": ("", "nd"), "few": ("", "rd"), "other": ("", "th")},
        "fr": {"one": ("", "er"), "other": ("", "e")},
        "sv": {"one": ("", ":a"), "other": ("", ":e")},
        "nl": {"other": ("", "e")},
        "es": {"other": ("", ".º")},
        "ca": {"one": ("", "r"), "two": ("", "n"), "few": ("", "t"), "other": ("", "è")},
        "zh": {"other": ("第", "")},
        "ja": {"other": ("第", "")},
    }
    | {language: {"other": ("", "º")} for language in ("pt", "it", "gl")}
    | {
        language: {"other": ("", ".")}
        for language in ("de", "da", "nb", "nn", "no", "fi", "is", "et", "lv", "cs", "sk", "sl", "hr", "sr", "bs", "pl")
    }
    | {language: {"other": ("", ".")} for language in ("hu", "tr")}
)


class Language:
    """The language of one template. ``default`` is English."""

    def __init__(self, locale: str) -> None:
        """Find the data of ``locale`` or its nearest parent, and load them: that takes some milliseconds."""
        self._tag = locale
        self._locale = _find(_DEFAULT_LANGUAGE if locale == DEFAULT else locale)
        if self._locale is not None:
            format_date(date(2000, 1, 1), "full", self._locale)
            format_decimal(1, locale=self._locale)

    def date(self, day: date, form: str) -> str:
        """Return a date: ``form`` is short, medium, long or full, a skeleton such as MMMMd, or a pattern."""
        if len(form) > _MAX_PATTERN:
            fail(f"a format of a date is too long: at most {_MAX_PATTERN} characters are accepted")
        return _format_date(day, form, self._known())

    def number(self, number: float) -> str:
        """Return a number with the separators of the language."""
        return format_decimal(number, locale=self._known())

    def ordinal(self, number: int) -> str:
        """Return a number as an ordinal, such as 30th."""
        return _format_ordinal(number, self._known())

    def _known(self) -> Locale:
        if self._locale is None:
            fail(f"dates and numbers in the language {self._tag} are not known")
        return self._locale


def _find(tag: str) -> Locale | None:
    while tag:
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            tag = tag.rpartition("-")[0]
    return None


@lru_cache(_KEPT)
def _format_date(day: date, form: str, locale: Locale) -> str:
    """Return a date as text. Kept, because nearly all messages of an hour have the same date."""
    if form not in _NAMED_FORMATS and form in locale.datetime_skeletons:
        return format_skeleton(form, day, locale=locale)
    return format_date(day, form, locale)


@lru_cache(_KEPT)
def _format_ordinal(number: int, locale: Locale) -> str:
    forms = _ORDINALS.get(locale.language)
    if forms is None:
        fail(f"the filter ordinal does not know the language {locale.language}")
    before, after = forms.get(locale.ordinal_form(number), forms["other"])
    return f"{before}{number}{after}"
