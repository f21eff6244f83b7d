"""Texts that say where the database, the queue and the channel are, for the log and commands; without secrets."""

from birthday.config import Role, Settings, mask_url


def database_name(settings: Settings) -> str:
    """Say which database is used, and how to use another one if that is not obvious."""
    if settings.database_url is None:
        return f"embedded PostgreSQL in {settings.birthday_data_dir.absolute()} (set DATABASE_URL for your own)"
    return mask_url(settings.database_url.get_secret_value())


def queue_name(settings: Settings) -> str:
    """Say which queue is used."""
    if settings.rabbitmq_url is None:
        return "in the database (set RABBITMQ_URL for RabbitMQ)"
    return mask_url(settings.rabbitmq_url.get_secret_value())


def channel_name(settings: Settings) -> str:
    """Say where messages go."""
    if settings.smtp_url is not None:
        return mask_url(settings.smtp_url.get_secret_value())
    if settings.message_service_url is None and Role.WORKER not in settings.role:
        return "none: without the role worker nothing is sent"
    if settings.message_service_url is None:
        return "console: greetings are printed (set MESSAGE_SERVICE_URL or SMTP_URL to send them)"
    return mask_url(settings.message_service_url)
