"""Unsubscribe links: short, signed, and without personal data."""

import hashlib
import re
from uuid import UUID

import pytest

from birthday.core.unsubscribe import Links, Unsubscriber

LINKS = Links(b"salt", b"key")
USER = UUID("0192f3a4-0000-7000-8000-000000000001")
TOKEN = LINKS.make_token(USER, "Ada@example.com")


def test_a_token_names_user_and_address() -> None:
    """The hash is the list's, without regard to case; what was made is read."""
    expected = Unsubscriber(USER, hashlib.sha256(b"saltada@example.com").digest())
    assert LINKS.read_token(TOKEN) == expected


def test_a_token_is_short_and_safe_in_a_url() -> None:
    """80 characters that no mail program breaks or encodes."""
    assert re.fullmatch(r"[A-Za-z0-9_-]{80}", TOKEN)


def test_a_token_of_another_installation_is_refused() -> None:
    """Only the key of the database that made it reads it."""
    assert Links(b"salt", b"another key").read_token(TOKEN) is None


@pytest.mark.parametrize("position", [0, 30, 79])
def test_a_changed_token_is_refused(position: int) -> None:
    """Each character is signed."""
    other = "A" if TOKEN[position] != "A" else "B"
    assert LINKS.read_token(TOKEN[:position] + other + TOKEN[position + 1 :]) is None


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "A", TOKEN[:-1] + "!", "é" * 80, "=" * 80, " " * 80])
def test_what_is_no_token_is_refused(token: str) -> None:
    """Whatever stands in the path, nothing fails."""
    assert LINKS.read_token(token) is None


def test_secrets_are_not_shown() -> None:
    """A log line or traceback that shows the object shows neither salt nor key."""
    assert repr(LINKS) == "Links()"
