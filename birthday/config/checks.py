"""Checks of the settings that hold for the service only: other commands neither send nor listen."""

from birthday.config.loading import misspelt_settings
from birthday.config.settings import Settings
from birthday.config.values import Role, is_loopback
from birthday.errors import ConfigurationError


def check_channel(settings: Settings) -> None:
    """Refuse settings with which the worker would print greetings that it should send.

    Raises:
        ConfigurationError: if the role worker runs, DATABASE_URL or RABBITMQ_URL is set, and no channel is chosen.
    """
    chosen = settings.message_service_url or settings.smtp_url or settings.channel
    if chosen or Role.WORKER not in settings.role or not (settings.database_url or settings.rabbitmq_url):
        return
    hints = "".join(f"; {name} is not a setting, did you mean {one}?" for name, one in misspelt_settings().items())
    raise ConfigurationError(
        "MESSAGE_SERVICE_URL is not set, nor is SMTP_URL, and the role worker would print the greetings of a real "
        "database or queue instead of sending them: set one of them, or CHANNEL=console to print them on purpose"
        f"{hints}"
    )


def check_listener(settings: Settings, *, has_keys: bool = False) -> None:
    """Refuse settings with which other hosts could use the API without a key; ``has_keys``: the database has keys.

    Raises:
        ConfigurationError: if the API has no keys, and HOST is not a loopback address.
    """
    if Role.API in settings.role and not (settings.api_keys or has_keys or is_loopback(settings.host)):
        raise ConfigurationError(
            f"HOST={settings.host} without API_KEYS would let anybody use the API: make a key with 'birthday keys "
            "create', or set API_KEYS to name:sha256hex:scope entries, or HOST to a loopback address such as 127.0.0.1"
        )
