"""``docs/content.md`` as a text: its examples say what it claims, and it names every variable, filter and file."""

import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from birthday.content import Rendered, Template
from birthday.content.compiling import SOURCE_CHARACTERS
from birthday.content.filters import TESTS_ACCEPTED, filters
from birthday.content.template import RESULT_CHARACTERS
from birthday.core.template import Source, Values
from birthday.errors import InvalidInputError
from birthday.operations.templates.files import FILES
from tests.support.runbook import read_spans

TEXT = (Path(__file__).parents[2] / "docs" / "content.md").read_text(encoding="utf-8")
ADA = {"plan": "gold", "points": 12345, "tags": ["b", "a"]}


def part(heading: str) -> str:
    """Return what stands under a heading."""
    return re.split(r"^#+ ", TEXT.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def examples(heading: str) -> list[tuple[str, str]]:
    """Return the templates of a table, each with its result."""
    rows = re.findall(r"^\| `(.*[{}].*)` \| `(.*)` \|$", part(heading), re.MULTILINE)
    return [(template.replace(r"\|", "|"), result) for template, result in rows]


def say(template: str | Source, *, years: int | None = 34, attributes: dict[str, Any] | None = None) -> Rendered:
    """Return what a template says to Ada."""
    source = template if isinstance(template, Source) else Source(template)
    day = date(2026, 11, 29)
    return Template(source, "default").render(
        Values("Ada", "", "ada@example.com", None, "birthday", day, years, attributes or {}, "an id")
    )


@pytest.mark.parametrize(("template", "result"), examples("Filters"))
def test_each_example_says_what_the_table_tells(template: str, result: str) -> None:
    """The user is the one of the text above the table."""
    assert say(template, attributes=ADA).message == result


@pytest.mark.parametrize(("template", "result"), examples("Missing values"))
def test_each_way_to_cover_a_missing_value_works(template: str, result: str) -> None:
    """Neither years nor attributes are known."""
    assert say(template, years=None).message == result


def test_the_example_of_a_payload_is_json() -> None:
    """Also for a user without the attribute that it names."""
    [payload] = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    said = say(Source("Hi", payload=payload)).payload
    assert said is not None
    assert b'"tags": []' in said


def test_every_variable_is_named() -> None:
    """And none that does not exist: the error of an unknown one lists them."""
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", part("Variables"), re.MULTILINE)))
    with pytest.raises(InvalidInputError) as caught:
        say(Source("Hi", payload="{{ nothing }}"))
    assert {*str(caught.value).partition("accepted are ")[2].split(", ")} == {*named, "loop"}


def test_every_filter_test_and_file_is_named() -> None:
    """The filters in examples or in the text, the files with their limits."""
    spans = read_spans(TEXT)
    shown = {name for template, _ in examples("Filters") for name in re.findall(r"\| (\w+)", template)}
    assert {name for name in filters() if not name.startswith("_")} <= {*shown, *spans}
    assert {*TESTS_ACCEPTED} <= {span.removeprefix("is ").partition("(")[0] for span in spans}
    for name, size in SOURCE_CHARACTERS.items():
        assert re.search(rf"^\| `{FILES[name]}` \|.*\| {size:,}; {RESULT_CHARACTERS[name]:,} \|$", TEXT, re.MULTILINE)
