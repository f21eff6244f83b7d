"""What the API takes and answers about templates."""

from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator, Field

from birthday.core.fields import TYPE_PATTERN, Email
from birthday.core.template import DEFAULT, Source
from birthday.http.api.parameters import DEFAULT_LIMIT, MAX_LIMIT, Input, Instant, Limit, NextCursor, Output, example
from birthday.http.cursors import TemplateCursor, VersionCursor
from birthday.operations.templates.trying import Trial
from birthday.operations.templates.values import KnownInput, check_whole
from birthday.store.templates import MAX_VERSION

Text = Annotated[str, Field(min_length=1)]
Version = Annotated[int, Field(ge=0, le=MAX_VERSION), BeforeValidator(check_whole)]


class SourceInput(Input):
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

    model_config = example({"message": "Feliz aniversário, {{ first_name }}!"})

    force: bool = Field(default=False, strict=True, description="Publish it even if it fails for some users.")


class TrialInput(Input):
    """For whom a template is tried: a user, or somebody made up."""

    model_config = example({"values": {"firstName": "Grace", "years": 40}})

    user_id: UUID | None = Field(default=None, description="Say it to this user.")
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

    model_config = example({"to": "dev@example.com"})

    to: Email = Field(description="The address that it is sent to.", examples=["dev@example.com"])


class ActivateInput(Input):
    """Which version is sent from now on."""

    model_config = example({"version": 1})

    version: Version = Field(description=f"0 is what is built in; it withdraws a template other than {DEFAULT}.")


class _Key(Output):
    type: str = Field(pattern=TYPE_PATTERN, examples=["birthday"])
    locale: str = Field(description="A language tag, or default.", examples=["pt-BR"])
    version: int = Field(ge=0, description="0 is what is built in, or a template withdrawn.")


class ActiveTemplate(_Key):
    """Which version of a template is sent."""

    activated_at: Instant | None = Field(description="When that was decided; null for what is built in.")
    activated_by: str | None = Field(description="Who decided it: `api:` and the name of a key, or an operator.")


class TemplatePage(Output):
    """A page of templates, by type and locale; the default comes first."""

    templates: list[ActiveTemplate] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


class TemplatesQuery(Input):
    """Which part of the list is asked for."""

    limit: Limit = DEFAULT_LIMIT
    cursor: TemplateCursor = None


class TemplateVersion(_Key):
    """One version of a template."""

    message: str
    subject: str | None
    html: str | None
    payload: str | None
    active: bool
    created_at: Instant | None = Field(description="When it was published; null for what is built in.")
    created_by: str | None = Field(description="Who published it.")


class VersionPage(Output):
    """A page of the versions of a template, the newest first."""

    versions: list[TemplateVersion] = Field(max_length=MAX_LIMIT)
    next_cursor: NextCursor


class VersionsQuery(Input):
    """Which versions are asked for."""

    limit: Limit = DEFAULT_LIMIT
    cursor: VersionCursor = None


class TemplatePreview(Output):
    """What a template says."""

    version: int | None = Field(description="The version that was tried; null for a draft.")
    message: str
    subject: str | None
    html: str | None
    payload: str | None


class TemplateTest(Output):
    """What became of a test."""

    delivered: bool
    reason: str | None = Field(
        description="Why it was not delivered. It is not stored: null in the answer to a repeated Idempotency-Key."
    )
