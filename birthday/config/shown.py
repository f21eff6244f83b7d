"""The settings as text: those in force, those that all processes must share, and the list in docs/settings.md."""

from dataclasses import dataclass
from datetime import time, timedelta

from pydantic import SecretStr

from birthday.config.settings import Settings
from birthday.config.urls import mask_path, mask_url
from birthday.config.values import ApiKey, role_names, show_duration

_SHARED = (
    "send_at",
    "leap_day",
    "catch_up_window",
    "plan_horizon",
    "max_attempts",
    "retry_base_delay",
    "retry_max_delay",
    "retention_days",
)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting with the value in force. Secrets are masked."""

    variable: str
    value: str
    is_set: bool


def effective_settings(settings: Settings) -> list[EffectiveSetting]:
    """Return every setting with the value in force and whether it was set, in the order of docs/settings.md."""
    return [
        EffectiveSetting(name.upper(), _show(getattr(settings, name)), name in settings.model_fields_set)
        for name in Settings.model_fields
    ]


@dataclass(frozen=True, slots=True)
class DocumentedSetting:
    """One setting as docs/settings.md lists it."""

    variable: str
    default: str
    meaning: str


def documented_settings() -> list[DocumentedSetting]:
    """Return every setting with its default and its meaning, in the order of declaration."""
    documented = []
    for name, field in Settings.model_fields.items():
        meaning, _, default = " ".join((field.description or "").split()).partition(" Default: ")
        shown = default.removesuffix(".") or _show(field.default)
        documented.append(DocumentedSetting(name.upper(), "none" if shown == "-" else shown, meaning))
    return documented


def shared_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that must be the same in all processes, as text. None of them is a secret.

    RABBITMQ_URL is shown as set or not set only. Processes may reach one cluster by different URLs, but they must not
    use RabbitMQ in one process and PostgreSQL in another.
    """
    values = {name.upper(): _show(getattr(settings, name)) for name in _SHARED}
    return values | {"RABBITMQ_URL": "-" if settings.rabbitmq_url is None else "set"}


def _show(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case SecretStr():
            text = value.get_secret_value()
            return mask_url(text) if "://" in text else "***"
        case timedelta():
            return show_duration(value)
        case time():
            return value.isoformat("minutes" if value.second == 0 else "seconds")
        case frozenset():
            return role_names(value)
        case tuple():
            return ",".join(_show(entry) for entry in value) or "-"
        case ApiKey():
            return f"{value.name}:***:{value.scope}"
        case str() if value.startswith("/"):
            return mask_path(value)
        case _:
            return mask_url(str(value)) if "://" in str(value) else str(value)
