"""Settings that contradict each other, or of which one needs another one."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from birthday.config.cron import longest_gap
from birthday.config.urls import mask_url
from birthday.config.values import show_duration

if TYPE_CHECKING:
    from birthday.config.settings import Settings


def contradictions(settings: "Settings") -> Iterator[str]:
    """Yield a text for each contradiction."""
    if settings.database_pool_min > settings.database_pool_max:
        yield (
            f"DATABASE_POOL_MIN={settings.database_pool_min} and DATABASE_POOL_MAX={settings.database_pool_max} "
            "contradict each other: a minimum that is not above the maximum is accepted"
        )
    if settings.database_url is None and (settings.database_direct_url or settings.database_pooler == "transaction"):
        name = "DATABASE_DIRECT_URL is set" if settings.database_direct_url else "DATABASE_POOLER=transaction"
        yield f"{name} without DATABASE_URL: the URL of the pooler is needed; the embedded database has no pooler"
    if settings.retry_base_delay > settings.retry_max_delay:
        yield (
            f"RETRY_BASE_DELAY={show_duration(settings.retry_base_delay)} and "
            f"RETRY_MAX_DELAY={show_duration(settings.retry_max_delay)} contradict each other: a base that is not "
            "above the maximum is accepted"
        )
    if timedelta(days=settings.retention_days) < settings.catch_up_window:
        yield (
            f"RETENTION_DAYS={settings.retention_days} and CATCH_UP_WINDOW={show_duration(settings.catch_up_window)} "
            "contradict each other: a cancelled message would be removed while it can still be planned again; a "
            "retention that is not below the window is accepted"
        )
    if settings.message_service_api_key and "@" in urlsplit(settings.message_service_url or "").netloc:
        yield (
            f"MESSAGE_SERVICE_URL={mask_url(settings.message_service_url or '')} and MESSAGE_SERVICE_API_KEY=*** "
            "contradict each other: a user in the URL or a key is accepted, not both"
        )
    if settings.events_url and not settings.events_secret:
        yield (
            f"EVENTS_URL={mask_url(settings.events_url)} without EVENTS_SECRET: a secret that signs the events is "
            "needed, such as whsec_ and the output of openssl rand -base64 32"
        )
    yield from _of_channel(settings)
    if not settings.model_fields_set & {"cron_plan", "plan_horizon"}:
        # The defaults fit, and computing the gap takes time at the start of each command.
        return
    gap = longest_gap(settings.cron_plan)
    if gap > settings.plan_horizon:
        yield (
            f"CRON_PLAN='{settings.cron_plan}' and PLAN_HORIZON={show_duration(settings.plan_horizon)} contradict each "
            f"other: the planner would pause for up to {show_duration(gap)}; a horizon of at least that is accepted"
        )


def _of_channel(settings: "Settings") -> Iterator[str]:
    smtp_url = mask_url(settings.smtp_url.get_secret_value()) if settings.smtp_url else ""
    service_url = mask_url(settings.message_service_url or "")
    if service_url and smtp_url:
        yield (
            f"MESSAGE_SERVICE_URL={service_url} and SMTP_URL={smtp_url} contradict each other: one of them is "
            "accepted, since each greeting is sent over one channel"
        )
    if (service_url or smtp_url) and settings.channel:
        name = "MESSAGE_SERVICE_URL" if service_url else "SMTP_URL"
        yield (
            f"{name}={service_url or smtp_url} and CHANNEL={settings.channel} contradict each other: one of them is "
            "accepted, since greetings are either sent or printed"
        )
    if smtp_url and not settings.smtp_from:
        yield (
            f"SMTP_URL={smtp_url} without SMTP_FROM: the sender of the e-mails is needed, such as "
            "SMTP_FROM=hello@example.com"
        )
