"""Names of users, and the text in which they stand."""

from datetime import UTC, datetime
from typing import Any

import pytest

from birthday.core.message import greeting
from birthday.core.user import Profile, parse_profile, patch_profile
from birthday.errors import InvalidInputError

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
ADA = {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "email": "ada@example.com",
    "dateOfBirth": "1990-12-10",
    "timezone": "UTC",
}

INVISIBLE = (
    *("00AD", "034F", "115F", "1160", "180E", "200B", "200D", "2060", "2800", "3164", "FE0F", "FEFF", "FFA0"),
    *("1D159", "E0041"),
)
TURNING = ("202A", "202B", "202C", "202D", "202E", "2066", "2067", "2068", "2069")


def parse(**changes: str | None) -> Profile:
    """Return the profile of Ada with changes."""
    return parse_profile(ADA | changes, NOW)


@pytest.mark.parametrize(
    "name",
    [
        "نیم\N{ZERO WIDTH NON-JOINER}فاصله",
        "ක්\N{ZERO WIDTH JOINER}ෂ",
        "क्\N{ZERO WIDTH JOINER}ष",
        "👩\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧",
        "❤\N{VARIATION SELECTOR-16}",
        "\N{RIGHT-TO-LEFT MARK}דוד",
        "X Æ A-12",
        ".",
        "a\N{ZERO WIDTH SPACE}b",
    ],
)
def test_names_of_every_script_are_taken_as_they_are(name: str) -> None:
    """What joins letters and emoji is part of them; nothing is taken out."""
    profile = parse(firstName=name, lastName=name)
    assert (profile.first_name, profile.last_name) == (name, name)


@pytest.mark.parametrize("field", ["firstName", "lastName"])
@pytest.mark.parametrize("code", INVISIBLE)
def test_a_name_has_something_to_see(field: str, code: str) -> None:
    """A name of characters that cannot be seen is refused."""
    invisible = chr(int(code, 16))
    with pytest.raises(InvalidInputError, match=f"^{field}: is not a name: nothing of it"):
        parse(**{field: f"{invisible} {invisible}"})


@pytest.mark.parametrize("field", ["firstName", "lastName"])
@pytest.mark.parametrize("code", TURNING)
def test_a_name_turns_no_text_around_it(field: str, code: str) -> None:
    """Embeddings, overrides and isolates would change how the rest of the greeting is read."""
    with pytest.raises(InvalidInputError, match=rf"^{field}: is not a name: U\+{code} is in it; text without control"):
        parse(**{field: f"a{chr(int(code, 16))}b"})


@pytest.mark.parametrize("changes", [{"lastName": ""}, {"lastName": None}, {"lastName": " "}])
def test_a_last_name_may_be_taken_away(changes: dict[str, Any]) -> None:
    """A user with one name is greeted by it, without a second blank."""
    profile = patch_profile(parse(), changes, NOW)
    assert profile.last_name == ""
    assert greeting(profile.first_name, profile.last_name) == "Hey, Ada it's your birthday"
    assert greeting("Ada", "Lovelace") == "Hey, Ada Lovelace it's your birthday"


def test_a_change_judges_what_it_changes() -> None:
    """Names and an address that were stored under older rules stay as they are, without an error."""
    old = Profile("\N{HANGUL FILLER}", "\N{ZERO WIDTH SPACE}", "a..b@x_y.de", parse().date_of_birth, "UTC")
    changed = patch_profile(old, {"timezone": "Europe/Berlin"}, NOW)
    assert changed == Profile(old.first_name, old.last_name, old.email, old.date_of_birth, "Europe/Berlin")
    with pytest.raises(InvalidInputError, match="email: "):
        patch_profile(old, {"email": old.email}, NOW)
