"""The list of settings tells of each one, and is up to date."""

from pathlib import Path

from birthday.cli.render.settings import document
from birthday.config import documented_settings

ROOT = Path(__file__).parents[2]


def test_the_list_is_up_to_date() -> None:
    """docs/settings.md is what ``python -m birthday.cli.render.settings`` prints."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == document()


def test_every_setting_says_what_it_means() -> None:
    """Each has a sentence, and a default that can be read."""
    settings = documented_settings()
    assert len(settings) > 30
    for one in settings:
        assert one.meaning.endswith("."), one
        assert one.default, one
