"""The error taxonomy: what can go wrong, in the words of the domain.

Nothing here depends on HTTP or exit statuses. ``http/middleware/problems.py`` turns these errors into HTTP responses,
``cli/command.py`` turns them into exit statuses.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

MAX_FIELD_ERRORS: Final = 50
"""How many errors of one input are told. Otherwise some 10 kB of input could be answered by a hundred times as much."""


class BirthdayError(Exception):
    """Base of every error that the product raises on purpose. Its text is fit for a person to read."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with one field of some input.

    ``pointer`` is an RFC 6901 JSON pointer (``/dateOfBirth``), or the empty string for the whole input. If the input is
    a parameter of a path or query, ``parameter`` is its name instead.
    """

    pointer: str
    detail: str
    parameter: str = ""

    @property
    def name(self) -> str:
        """The name of what is wrong, as a person reads it; empty for the whole input."""
        return self.parameter or self.pointer.lstrip("/")


class InvalidInputError(BirthdayError):
    """Input that breaks a rule. Carries all broken fields, not just the first; of very many, the number."""

    def __init__(self, *fields: FieldError, code: str = "invalid_field") -> None:
        """Keep ``fields``, and name them in the text; ``code`` is a stable word for programs."""
        if len(fields) > MAX_FIELD_ERRORS:
            told = fields[: MAX_FIELD_ERRORS - 1]
            fields = (*told, FieldError("", f"and {len(fields) - len(told):,} errors more"))
        super().__init__("; ".join(f"{field.name}: {field.detail}".lstrip(": ") for field in fields))
        self.fields = fields
        self.code = code


class NotFoundError(BirthdayError):
    """The thing that was named does not exist (any more). ``code`` is a stable word for programs."""

    def __init__(self, message: str, code: str = "not_found") -> None:
        super().__init__(message)
        self.code = code


class ConflictError(BirthdayError):
    """The request is well-formed but conflicts with stored data.

    ``pointer`` names the field, if there is one, and ``code`` is a stable word for programs. If another user has the
    ``value`` of the field, ``existing_id`` is that user, once somebody has looked.
    """

    def __init__(self, message: str, pointer: str = "", code: str = "conflict", value: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer
        self.code = code
        self.value = value
        self.existing_id: UUID | None = None


class OutdatedError(BirthdayError):
    """A change depends on a state of the resource that is not its state now. Nothing was changed."""


class InProgressError(BirthdayError):
    """Another request with the same Idempotency-Key is still being carried out."""

    def __init__(self) -> None:
        super().__init__("a request with this Idempotency-Key is still being carried out: send it again for the answer")


class RepeatedError(InProgressError):
    """Another request with the same Idempotency-Key has been carried out meanwhile, so this one has no effect."""


class UnavailableError(BirthdayError):
    """A resource that we depend on cannot be used now. ``resource`` names it: database, queue, channel, ..."""

    def __init__(self, resource: str, message: str, *, maybe_done: bool = False) -> None:
        """Keep the name of the resource; ``message`` says at which address it was tried and why that failed.

        ``maybe_done`` says that perhaps only the answer is lost: the operation may have been done.
        """
        super().__init__(message)
        self.resource = resource
        self.maybe_done = maybe_done


class AwayError(UnavailableError):
    """The resource does not answer, or cannot serve yet, but may come back by itself. A refusal is not one."""


class WrongClockError(UnavailableError):
    """This host's clock differs from the database's. The text says by how much."""

    def __init__(self, fault: str) -> None:
        super().__init__("clock", fault)


class MigrationError(BirthdayError):
    """The schema is not what the program needs, or cannot be migrated to it. The text names the migration."""


class ConfigurationError(BirthdayError):
    """A setting is invalid, or two contradict each other. The text names variable, value and what is accepted."""
