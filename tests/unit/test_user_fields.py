"""What the fields of a user accept that few users have, and birthdays without a year."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthday.core.dates import UNKNOWN_YEAR, birthday_text, parse_birthday, years_since
from birthday.core.user import NO_EXTRAS, Extras, Profile, parse_profile, parse_replacement, patch_profile
from birthday.errors import InvalidInputError

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
ADA = {"firstName": "Ada", "email": "ada@example.com", "dateOfBirth": "1990-12-10", "timezone": "UTC"}
WORK = {"work-anniversary": "2019-03-04"}
FULL = {
    "externalId": "crm 4711",
    "locale": "pt-BR",
    "attributes": {"team": "blue", "level": 7, "middle": None},
    "anniversaries": WORK | {"wedding": "2004-02-29"},
    "suppressed": True,
}


def parse(**changes: object) -> Profile:
    """Return the profile of Ada with changes."""
    return parse_profile(ADA | changes, NOW)


def problems(**changes: object) -> dict[str, str]:
    """Return what is wrong with the changes, by field."""
    with pytest.raises(InvalidInputError) as caught:
        parse(**changes)
    return {error.pointer: error.detail for error in caught.value.fields}


def test_what_is_not_given_is_not_there() -> None:
    """Absent and null are the same, and an input without the fields costs nothing."""
    assert parse().extras is NO_EXTRAS
    assert parse(**dict.fromkeys(FULL)).extras == NO_EXTRAS


def test_a_profile_comes_back_from_its_own_input() -> None:
    """All fields together."""
    profile = parse(**FULL)
    assert profile.extras == Extras(
        "crm 4711",
        "pt-BR",
        {"team": "blue", "level": 7, "middle": None},
        {"work-anniversary": date(2019, 3, 4), "wedding": date(2004, 2, 29)},
        suppressed=True,
    )
    assert parse_profile(profile.as_input(), NOW) == profile


@given(st.dates(min_value=date(1900, 1, 1)) | st.dates(date(UNKNOWN_YEAR, 1, 1), date(UNKNOWN_YEAR, 12, 31)))
def test_a_birthday_is_read_as_it_was_written(born: date) -> None:
    """With or without its year."""
    assert parse_birthday(birthday_text(born)) == born


def test_a_birthday_may_have_no_year() -> None:
    """Also 29 February; nobody knows how old such a user is."""
    assert parse(dateOfBirth="--02-29").date_of_birth == date(UNKNOWN_YEAR, 2, 29)
    assert birthday_text(date(UNKNOWN_YEAR, 2, 29)) == "--02-29"
    assert years_since(date(UNKNOWN_YEAR, 2, 29), 2026) is None
    assert years_since(date(1990, 3, 4), 2026) == 36


@pytest.mark.parametrize("text", ["--02-30", "--13-01", "--2-9", "-02-28", "02-28", "0004-02-29", "", "--02-28T00:00Z"])
def test_a_day_that_is_none_is_refused(text: str) -> None:
    """Nothing is taken for 1 January; the year that stands for none cannot be written."""
    assert "--" in problems(dateOfBirth=text)["/dateOfBirth"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("de", "de"),
        ("pt_br", "pt-BR"),
        ("PT-br", "pt-BR"),
        ("zh-hant-tw", "zh-Hant-TW"),
        ("es-419", "es-419"),
        ("de-CH-1996", "de-CH-1996"),
        ("en-us-U-CA-buddhist", "en-US-u-ca-buddhist"),
        ("sl-rozaj-biske", "sl-rozaj-biske"),
    ],
)
def test_a_locale_is_kept_in_its_usual_case(given: str, kept: str) -> None:
    """BCP 47 ignores case, and many programs write an underscore."""
    assert parse(locale=given).extras.locale == kept


@pytest.mark.parametrize("text", ["english", "e", "", "en_US.UTF-8", "x-foo", "de--AT", "de-", "C", "default", "dé"])
def test_a_locale_that_is_none_is_refused(text: str) -> None:
    """The error repeats it and gives an example."""
    assert "is not a locale; a language tag such as de, pt-BR" in problems(locale=text)["/locale"]


@pytest.mark.parametrize("given", ["x", "4711", "a b", "Ünïcode/#?", "x" * 200])
def test_an_external_id_is_kept_as_it_is(given: str) -> None:
    """Any visible characters, in either case."""
    assert parse(externalId=given).extras.external_id == given


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "must not be empty"),
        (" ", "must not be empty"),
        ("x" * 201, "at most 200 characters"),
        ("a\N{ZERO WIDTH SPACE}b", "is not an id; visible characters"),
        ("a\tb", "is not an id"),
        (4711, "is not text"),
    ],
)
def test_an_external_id_that_nobody_could_read_is_refused(given: object, problem: str) -> None:
    """Invisible characters would make two ids that look the same."""
    assert problem in problems(externalId=given)["/externalId"]


def nested(levels: int) -> dict[str, Any]:
    """Return an object of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_attributes_have_a_limit() -> None:
    """The limit counts bytes of JSON in UTF-8, however the request was written."""
    fitting = {"a": "é" * 2044}
    assert parse(attributes=fitting).extras.attributes == fitting
    assert parse(attributes=nested(8)).extras.attributes == nested(8)
    assert problems(attributes={"a": "x" * 5120}) == {
        "/attributes": "takes 5128 bytes as JSON; at most 4096 are accepted"
    }
    assert problems(attributes=nested(9))["/attributes"] == "is nested too deep: at most 8 levels are accepted"
    assert "U+0000" in problems(attributes={"a\0": 1})["/attributes"]
    assert "U+0000" in problems(attributes={"a": ["\0"]})["/attributes"]
    refused: object
    for refused in ([], "{}", 7):
        assert "is not a JSON object" in problems(attributes=refused)["/attributes"]


@pytest.mark.parametrize("name", ["birthday", "Birthday", "work anniversary", "1st", "-a", "", "a" * 41, " a", "a_b"])
def test_a_name_that_no_occasion_can_have_is_refused(name: str) -> None:
    """The birthday is not another date, and a name is a name in every place that it is used."""
    [(pointer, detail)] = problems(anniversaries={name: "2019-03-04"}).items()
    assert pointer == f"/anniversaries/{name}"
    assert "cannot be the name of a yearly date; one such as work-anniversary is accepted" in detail


@pytest.mark.parametrize("day", ["", None, "2019-02-29", "--03-04", "2026-03-02", "1899-12-31", "0000-01-01", 7])
def test_a_yearly_date_is_a_date_that_has_come(day: object) -> None:
    """An empty text or null is no date, least of all 1 January; a year is needed; today is the latest."""
    assert set(problems(anniversaries={"work-anniversary": day})) == {"/anniversaries/work-anniversary"}
    assert parse(anniversaries={"a": "2026-03-01", "b": "1900-01-01T00:00:00Z"}).extras.anniversaries == {
        "a": date(2026, 3, 1),
        "b": date(1900, 1, 1),
    }


def test_there_are_twenty_yearly_dates_at_most() -> None:
    """One more is refused."""
    many = {f"day-{number}": "2019-03-04" for number in range(20)}
    assert len(parse(anniversaries=many).extras.anniversaries) == 20
    assert problems(anniversaries=many | WORK) == {
        "/anniversaries": "has more dates than the 20 that are accepted",
    }
    assert "is not a JSON object" in problems(anniversaries=["2019-03-04"])["/anniversaries"]


def test_a_truth_is_not_guessed() -> None:
    """Only true and false say whether somebody is suppressed."""
    for refused in ("yes", "true", 1):
        assert "true or false is" in problems(suppressed=refused)["/suppressed"]


def test_an_unknown_name_gets_the_known_ones() -> None:
    """A field that is misspelt is an error that lists what there is."""
    assert problems(externalID="7")["/externalID"] == (
        "is not a field of a user; accepted are firstName, lastName, email, dateOfBirth, timezone, timezoneOffset, "
        "externalId, locale, attributes, anniversaries, suppressed"
    )
    assert "/id" in problems(id="7")


def test_of_very_many_errors_the_first_are_told() -> None:
    """An answer is no longer than what can be read, and a line of an import takes no longer than others."""
    told = problems(**{f"field{number}": 0 for number in range(90)})
    assert len(told) == 50
    assert told[""] == "and 41 errors more"
    assert problems(**{f"field{number}": 0 for number in range(5000)}) == {
        "": "has 5,004 members; at most 100 are accepted"
    }
    assert problems(anniversaries={f"Day {number}": 0 for number in range(5000)}) == {
        "/anniversaries": "has more dates than the 20 that are accepted"
    }


def test_a_patch_changes_what_it_names() -> None:
    """Of the objects too: a value replaces, null takes away, what is not named stays, null for none is no error."""
    profile = parse(**FULL)
    changed = patch_profile(
        profile,
        {
            "attributes": {"team": None, "floor": [1, None]},
            "anniversaries": {"wedding": None, "divorce": None, "moved-in": "2020-01-01"},
            "locale": None,
        },
        NOW,
    )
    assert changed.extras == Extras(
        "crm 4711",
        None,
        {"level": 7, "middle": None, "floor": [1, None]},
        {"work-anniversary": date(2019, 3, 4), "moved-in": date(2020, 1, 1)},
        suppressed=True,
    )
    emptied = patch_profile(profile, {"attributes": None, "anniversaries": None, "externalId": None}, NOW)
    assert emptied.extras == Extras(locale="pt-BR", suppressed=True)
    assert patch_profile(profile, {"firstName": "Eda"}, NOW).extras == profile.extras


@pytest.mark.parametrize("changes", [{"Birthday": None}, {"birthday": None}, {"work-anniversary": ""}, {"": None}])
def test_a_patch_takes_back_only_what_can_be_there(changes: dict[str, str | None]) -> None:
    """The birthday cannot be taken back, and an empty text takes nothing back."""
    with pytest.raises(InvalidInputError, match=rf"^anniversaries/{next(iter(changes))}: "):
        patch_profile(parse(**FULL), {"anniversaries": changes}, NOW)


def test_what_a_patch_does_not_change_is_not_judged() -> None:
    """A value that another program wrote does not stand in the way."""
    old = Profile("Ada", "", "ada@example.com", date(1990, 12, 10), "UTC", Extras("\0", "??", {"a": "x" * 9000}))
    assert patch_profile(old, {"timezone": "Europe/Berlin"}, NOW).extras == old.extras


def test_no_write_ends_a_suppression() -> None:
    """A program that always sends false, or an old copy, revives nobody."""
    suppressed = parse(suppressed=True)
    for again in ({}, {"suppressed": None}, {"suppressed": False}):
        assert parse_replacement(suppressed, ADA | again, NOW).extras.suppressed
        assert patch_profile(suppressed, again, NOW).extras.suppressed
    for change in (parse_replacement(parse(), ADA | {"suppressed": True}, NOW), patch_profile(parse(), FULL, NOW)):
        assert change.extras.suppressed


def test_a_replacement_replaces_all() -> None:
    """What is not given is gone, and members that only we set are passed over."""
    read_only: dict[str, object] = {
        "id": "7",
        "nextMessageAt": None,
        "occasions": [],
        "createdAt": "x",
        "updatedAt": "x",
    }
    assert parse_replacement(parse(locale="de", anniversaries=WORK), ADA | read_only, NOW).extras == NO_EXTRAS
