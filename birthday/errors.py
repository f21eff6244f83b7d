"""The error taxonomy: what can go wrong, in the words of the domain.

Nothing here knows of HTTP or of exit statuses: ``http/middleware/problems.py`` and ``cli/command.py`` translate them,
each in one place.
"""

from dataclasses import dataclass


class BirthdayError(Exception):
    """Base of every error that the product raises on purpose. Its text is fit for a person to read."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with one field of some input.

    ``pointer`` is an RFC 6901 JSON pointer (``/dateOfBirth``), or the empty string for the whole input.
    """

    pointer: str
    detail: str


class InvalidInputError(BirthdayError):
    """Input that breaks a rule. Carries every broken field, not just the first."""

    def __init__(self, *fields: FieldError) -> None:
        """Keep ``fields`` and say them all in the message."""
        super().__init__("; ".join(f"{field.pointer.lstrip('/')}: {field.detail}".lstrip(": ") for field in fields))
        self.fields = fields


class NotFoundError(BirthdayError):
    """The thing that was named does not exist (any more)."""


class ConflictError(BirthdayError):
    """The request is well-formed and clashes with what is stored. ``pointer`` names the field, if there is one."""

    def __init__(self, message: str, pointer: str = "") -> None:
        """Keep the text and the JSON pointer of the field that clashes."""
        super().__init__(message)
        self.pointer = pointer


class UnavailableError(BirthdayError):
    """A resource that we depend on cannot be used now. ``resource`` names it: database, queue, channel, ..."""

    def __init__(self, resource: str, message: str, *, maybe_done: bool = False) -> None:
        """Keep which resource it is; the text says where it was looked for and why it failed.

        ``maybe_done`` says that only the answer may be lost: what was asked for may have been done all the same.
        """
        super().__init__(message)
        self.resource = resource
        self.maybe_done = maybe_done


class WrongClockError(UnavailableError):
    """The clock of this host is not the database's. The text says how far it is off."""

    def __init__(self, fault: str) -> None:
        """Keep what is wrong with it."""
        super().__init__("clock", fault)


class ConfigurationError(BirthdayError):
    """A setting, or two that contradict each other. The text names variable, value and what is accepted."""
