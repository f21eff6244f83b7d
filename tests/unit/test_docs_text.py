"""README, CONTRIBUTING and docs/ as texts: what they point to exists."""

import re
from pathlib import Path

import pytest

from tests.support.runbook import read_anchors, read_links, read_spans

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(text: Path) -> None:
    """Links out of the repository are not followed."""
    for link in read_links(text.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = text.parent / path if path else text
        assert target.exists(), link
        assert not anchor or anchor in read_anchors(target.read_text()), link


@pytest.mark.parametrize(
    ("text", "root"),
    [("docs/architecture.md", "birthday"), ("docs/decisions.md", "birthday"), ("CONTRIBUTING.md", ".")],
)
def test_every_module_and_package_that_is_named_exists(text: str, root: str) -> None:
    """A name is a path in backticks that ends with .py or a slash."""
    named = [span for span in read_spans((ROOT / text).read_text()) if re.fullmatch(r"[\w./]*(?:\.py|\w/)", span)]
    assert len(named) > 3
    assert [name for name in named if not (ROOT / root / name).exists() and not (ROOT / name).exists()] == []


def test_the_readme_stays_short() -> None:
    """At most 200 lines: more belongs into docs/."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize(("text", "at_least"), [("SECURITY.md", 30), ("docs/operations.md", 30)])
def test_the_tests_that_a_table_names_exist(text: str, at_least: int) -> None:
    """SECURITY.md names one for each control, docs/operations.md for each step of a deployment; and their files."""
    file, checked = "", 0
    for row in (ROOT / text).read_text(encoding="utf-8").splitlines():
        for path, name in re.findall(r"`(tests/[\w/]+\.py)`|`(test_\w+)`", row):
            file = path or file
            checked += bool(name)
            assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)
    assert checked > at_least
