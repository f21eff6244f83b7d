"""Why a template says nothing. No text quotes a value, because values are personal data."""

from typing import NoReturn

from jinja2 import UndefinedError

from birthday.errors import BirthdayError


class RenderError(BirthdayError):
    """A template cannot be rendered for somebody. ``lacks_attribute`` says that others may have what is missing."""

    def __init__(self, reason: str, *, lacks_attribute: bool = False) -> None:
        """Keep the text, which names part and line."""
        super().__init__(reason)
        self.lacks_attribute = lacks_attribute


class MissingAttributeError(UndefinedError):
    """An attribute that this user does not have."""


def fail(reason: str) -> NoReturn:
    """End the rendering.

    Raises:
        RenderError: always.
    """
    raise RenderError(reason)
