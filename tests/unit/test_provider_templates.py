"""The example templates of ``config/templates/`` say what the interfaces of their providers accept."""

from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from birthday.config import Settings, read_smtp_url
from birthday.content import Template
from birthday.core.template import Values
from birthday.operations.templates.files import read_directory

DIRECTORY = Path(__file__).parents[2] / "config" / "templates"
NAME = 'Zoë "Zo" O\'Neil'
TEXT = f"Happy birthday, {NAME}!\n\nAll the best from everybody at Example Ltd."
SUBJECT = f"Happy birthday, {NAME}!"
ON_A_CHANNEL = f"Today is the birthday of {NAME}. Say hello!"
ZOE = Values(NAME, "", "zoe@example.com", None, "birthday", date(2027, 3, 1), 30, {"phone": "+15551234567"}, "0190-id")

EXPECTED: dict[str, Any] = {
    "sendgrid": {
        "personalizations": [{"to": [{"email": "zoe@example.com", "name": NAME}]}],
        "from": {"email": "hello@example.com", "name": "Example Ltd"},
        "subject": SUBJECT,
        "content": [{"type": "text/plain", "value": TEXT}, {"type": "text/html", "value": ...}],
        "custom_args": {"message_id": "0190-id"},
    },
    "resend": {
        "from": "Example Ltd <hello@example.com>",
        "to": ["zoe@example.com"],
        "subject": SUBJECT,
        "text": TEXT,
        "html": ...,
    },
    "postmark": {
        "From": "Example Ltd <hello@example.com>",
        "To": "zoe@example.com",
        "Subject": SUBJECT,
        "TextBody": TEXT,
        "HtmlBody": ...,
        "MessageStream": "outbound",
        "Metadata": {"message_id": "0190-id"},
    },
    "mailgun": None,
    "twilio": {"to": "+15551234567", "body": f"Happy birthday, {NAME}! All the best from Example Ltd."},
    "slack": {
        "text": "A birthday today",
        "blocks": [{"type": "section", "text": {"type": "plain_text", "text": ON_A_CHANNEL}}],
    },
    "teams": {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": ON_A_CHANNEL}]}],
                },
            }
        ],
    },
}


def with_html(expected: object, html: str | None) -> object:
    """Return a document with ``html`` wherever the HTML belongs."""
    if isinstance(expected, dict):
        return {name: with_html(value, html) for name, value in expected.items()}
    if isinstance(expected, list):
        return [with_html(value, html) for value in expected]
    return html if expected is ... else expected


def test_there_is_an_example_for_each_of_these_providers() -> None:
    """None is left untried."""
    assert {path.name for path in DIRECTORY.iterdir() if path.is_dir()} == set(EXPECTED)


@pytest.mark.parametrize("provider", EXPECTED)
def test_the_document_is_what_the_provider_takes(provider: str) -> None:
    """Names and places are those of the provider's reference; a name with quotes and accents arrives as it is."""
    [(key, source)] = read_directory(DIRECTORY / provider).items()

    said = Template(source, key[1]).render(ZOE)

    document = None if said.payload is None else orjson.loads(said.payload)
    assert document == with_html(EXPECTED[provider], said.html)
    if said.html is not None:
        assert "Zoë &#34;Zo&#34; O&#39;Neil" in said.html


def test_the_settings_in_the_readme_are_accepted() -> None:
    """Each line of the table is one channel."""
    rows = [line.split("|") for line in (DIRECTORY / "README.md").read_text(encoding="utf-8").splitlines()]
    given = [row[3] for row in rows if len(row) == 5 and "_URL=" in row[3]]
    assert len(given) == len(EXPECTED)
    for text in given:
        pairs = [part.split("=", 1) for part in text.split("`") if "=" in part]
        values = {name.lower(): value.replace("TOKEN", "s3cret") for name, value in pairs}
        settings = Settings.model_validate(values)
        assert settings.smtp_url is None or read_smtp_url(settings.smtp_url.get_secret_value()).user
