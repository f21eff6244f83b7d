"""The bodies of requests about templates, as pydantic models: they validate, and describe themselves in OpenAPI."""

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from birthday.core.fields import Email
from birthday.core.template import DEFAULT, Source
from birthday.operations.templates.trying import Trial
from birthday.operations.templates.values import KnownInput, check_whole

MAX_VERSION: Final = 2**31 - 1

Text = Annotated[str, Field(min_length=1)]
Version = Annotated[int, Field(ge=0, le=MAX_VERSION), BeforeValidator(check_whole)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class SourceInput(_Body):
    """The parts of a template."""

    message: Text = Field(description="The text.", examples=["Parabéns, {{ first_name }}!"])
    subject: Text | None = Field(default=None, description="Of an e-mail.")
    html: Text | None = Field(default=None, description="Of an e-mail, besides the text.")
    payload: Text | None = Field(default=None, description="JSON that replaces the body for the message service.")

    def source(self) -> Source:
        """Return the source."""
        return Source(self.message, self.subject, self.html, self.payload)


class PublishInput(SourceInput):
    """A template to be published."""

    force: bool = Field(default=False, strict=True, description="Publish it even if it fails for some users.")


class TrialInput(_Body):
    """For whom a template is tried: a user, or somebody made up."""

    user_id: UUID | None = Field(default=None, alias="userId", description="Say it to this user.")
    values: KnownInput | None = Field(
        default=None, description="Without userId: say it to somebody of whom this is known."
    )
    version: Version | None = Field(default=None, description="Try this version; the active one if not given.")
    draft: SourceInput | None = Field(default=None, description="Try this in place of what is stored.")

    def trial(self, message_type: str, locale: str) -> Trial:
        """Return what to try."""
        known = None if self.values is None else self.values.known()
        draft = None if self.draft is None else self.draft.source()
        return Trial(message_type, locale, self.version, self.user_id, known, draft)


class TestInput(TrialInput):
    """A test, and who gets it."""

    to: Email = Field(description="The address that it is sent to.", examples=["dev@example.com"])


class ActivateInput(_Body):
    """Which version is sent from now on."""

    version: Version = Field(description=f"0 is what is built in; it withdraws a template other than {DEFAULT}.")


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of all bodies, by name."""
    found: dict[str, dict[str, Any]] = {}
    for model in (PublishInput, TrialInput, TestInput, ActivateInput):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= schema.pop("$defs", {})
        found[model.__name__] = schema
    return found
