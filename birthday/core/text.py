"""Text that a person sees: find its invisible characters, and show them in errors."""

import json
import re
import unicodedata

CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
BIDI = r"\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates (UAX 9): they change how the text around them is read."""
UNREADABLE = "control characters and without characters that turn the direction of writing"
"""What CONTROL and BIDI are, as text says it."""

# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties, annotations, and letters and symbols without ink.
# The escapes are those that every dialect of regular expressions knows.
INVISIBLE_IN_BMP = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
)
INVISIBLE_BEYOND = (
    "\U00013430-\U0001345f\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""No escape is common to all dialects here, and JavaScript's cannot have such a range without its flag ``u``."""
INVISIBLE = INVISIBLE_IN_BMP + INVISIBLE_BEYOND
_INVISIBLE = re.compile(rf"[{CONTROL}{INVISIBLE}]")
_TO_REVEAL = re.compile(rf"[{CONTROL}{INVISIBLE}]|[^\S ]")


def find_invisible(text: str) -> str | None:
    """Return the first character that is invisible or only formats others (category Cf); None if there is none."""
    if text.isascii() and text.isprintable():
        return None
    return next(
        (character for character in text if _INVISIBLE.match(character) or unicodedata.category(character) == "Cf"),
        None,
    )


def reveal(text: str) -> str:
    """Return ``text`` with each invisible character written as its code point, such as ``<U+200B>``."""
    return (
        text if text.isascii() and text.isprintable() else _TO_REVEAL.sub(lambda match: f"<{name_of(match[0])}>", text)
    )


def show(value: object) -> str:
    """Return a value as text for an error: at most 100 characters, with the invisible ones revealed."""
    text = reveal(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 100 else f"{text[:97]}..."


def name_of(character: str) -> str:
    """Return a character's code point, such as ``U+200B``."""
    return f"U+{ord(character):04X}"
