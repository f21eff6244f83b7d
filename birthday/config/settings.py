"""The model of all settings: names, defaults, meanings, and which values and relations are accepted.

docs/settings.md and ``birthday check`` list what is defined here.
"""

import re
import ssl
from collections.abc import Callable
from datetime import time, timedelta
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from birthday.config.contradictions import contradictions
from birthday.config.cron import parse_cron
from birthday.config.smtp import read_sender, read_smtp_url
from birthday.config.urls import (
    check_amqp_url,
    check_database_url,
    check_path,
    check_proxy_url,
    check_public_url,
    check_service_url,
)
from birthday.config.values import (
    ApiKey,
    Network,
    Protected,
    Role,
    parse_api_keys,
    parse_duration,
    parse_lead,
    parse_networks,
    parse_origins,
    parse_protected,
    parse_rate,
    parse_roles,
    parse_time_of_day,
    positive,
    role_names,
)
from birthday.core.occasion import LeapDay, Rules
from birthday.core.retry import RetryPolicy
from birthday.core.signing import parse_signing_secrets

PositiveDuration = Annotated[timedelta, BeforeValidator(lambda value: positive(parse_duration(value)))]
Cron = Annotated[str, BeforeValidator(parse_cron)]


class Settings(BaseSettings):
    """The settings of one process. Each field is the environment variable of the same name in capitals.

    The text below a field is its line in docs/settings.md. If it has ``Default:``, what follows is listed there instead
    of the default value.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=False,
        use_attribute_docstrings=True,
    )

    database_url: SecretStr | None = None
    """Database of your own, as `postgresql://user:password@host:5432/database`, with the encoding UTF8. Several
    hosts are separated by commas; the one that can be written to is used. libpq's parameters in its query are obeyed,
    or named in the log as ignored. It may lead to a [pooler](operations.md#poolers).
    Default: embedded PostgreSQL in BIRTHDAY_DATA_DIR."""
    database_direct_url: SecretStr | None = None
    """The same database without the pooler that DATABASE_URL leads to, for what needs a session: migrations, dry runs
    of imports, and the notifications of the queue in PostgreSQL.
    Default: none: without sessions, the queue is polled."""
    database_pooler: Literal["session", "transaction"] = Field(
        default_factory=lambda given: "transaction" if given.get("database_direct_url") else "session"
    )
    """What a pooler lends a client its connection for, if there is one: `session`, or `transaction` (pgbouncer:
    `pool_mode = transaction`). Default: session; transaction with DATABASE_DIRECT_URL."""
    database_pool_min: int = Field(default=2, ge=0, le=1000)
    """Connections that are kept open."""
    database_pool_max: int = Field(default=20, ge=4, le=1000)
    """Connections at most, at least 4."""
    rabbitmq_url: SecretStr | None = None
    """RabbitMQ, as `amqp://user:password@host:5672/vhost` or `amqps://`. Several nodes: `@one:5672,two:5672/vhost`.
    Default: the queue is kept in PostgreSQL."""
    message_service_url: str | None = None
    """Base URL of the message service. Default: none: see CHANNEL."""
    message_service_path: str = "/send"
    """Path that messages are POSTed to, appended to the base URL; it may have a query. Its query and long segments are
    not shown, because providers of webhooks put secrets there."""
    message_service_api_key: SecretStr | None = None
    """Sent as `Authorization: Bearer ...`."""
    message_service_signing_secret: SecretStr | None = None
    """`whsec_...`: requests are signed as [Standard Webhooks](https://www.standardwebhooks.com) 1.0 describes. Two,
    separated by a space, while one is replaced: each request has both signatures."""
    message_service_timeout: PositiveDuration = timedelta(seconds=10)
    """Time limit of one attempt of any channel, connecting included."""
    smtp_url: SecretStr | None = None
    """Mail server that greetings are sent to as e-mails, in place of a message service:
    `smtp://user:password@mail.example.com:587` (STARTTLS is required, unless the URL ends in `?starttls=false`) or
    `smtps://`."""
    smtp_from: str | None = None
    """Sender of e-mails, such as `Example Ltd <hello@example.com>`; required with SMTP_URL."""
    public_url: str | None = None
    """How the world reaches the API, such as `https://greetings.example.com`; unsubscribe links begin with it.
    Default: none: greetings have no unsubscribe link."""
    events_url: str | None = None
    """URL that delivery events are POSTed to by the role scheduler, see [outcomes.md](outcomes.md)."""
    events_secret: SecretStr | None = None
    """`whsec_...`: signs delivery events as Standard Webhooks 1.0 describes; required with EVENTS_URL. Two, separated
    by a space, while one is replaced."""
    events_allow_private: bool = False
    """Whether EVENTS_URL may lead to a private network or to this host. Not looked at if a proxy is on the way."""
    channel: Literal["console"] | None = None
    """`console` prints greetings on purpose. Without it and without a URL, the role worker does not start on your own
    database or queue. Default: by MESSAGE_SERVICE_URL or SMTP_URL."""
    console: Literal["on", "off"] = "on"
    """Web pages for operators under `/console`, in processes with the role api; `off` removes them."""
    host: str = "127.0.0.1"
    """Address of the listener."""
    port: int = Field(default=3000, ge=0, le=65535)
    """Port of the listener; 0 picks a free one and logs it."""
    role: Annotated[frozenset[Role], NoDecode, BeforeValidator(parse_roles)] = frozenset(Role)
    """Roles of the process, as for `--role`."""
    worker_concurrency: int = Field(default_factory=lambda given: 20 if given.get("smtp_url") else 100, ge=1, le=10_000)
    """Messages that one worker process sends at a time. Each needs a connection; mail servers allow few.
    Default: 100; 20 with SMTP_URL."""
    send_at: Annotated[time, BeforeValidator(parse_time_of_day)] = time(9)
    """Local time of day. A new one also moves what is planned and not in the queue yet, when a scheduler starts with
    it."""
    leap_day: LeapDay = LeapDay.FEB28
    """`feb28` or `mar1`: where 29 February falls in other years. A new one moves messages as SEND_AT does."""
    catch_up_window: PositiveDuration = timedelta(hours=48)
    """How late a message may still be sent after downtime."""
    plan_horizon: PositiveDuration = timedelta(hours=48)
    """How far ahead messages are planned."""
    dispatch_ahead: Annotated[timedelta, BeforeValidator(parse_lead)] = timedelta(seconds=10)
    """How long before it is due a message may be put into the queue, at most 30s; a worker holds it until its instant.
    0 puts nothing there that is not due."""
    cron_plan: Cron = "*/5 * * * *"
    """When the planner ticks, UTC."""
    cron_recover: Cron = "* * * * *"
    """When the janitor rescues and expires, UTC."""
    cron_retention: Cron = "30 2 * * *"
    """When old messages are removed, UTC."""
    max_attempts: int = Field(default=5, ge=1, le=1000)
    """Attempts before a message fails for good."""
    retry_base_delay: PositiveDuration = timedelta(seconds=2)
    """First step of the exponential backoff, which has full jitter."""
    retry_max_delay: PositiveDuration = timedelta(minutes=10)
    """Longest step of the backoff."""
    retry_unknown: Literal["auto", "always", "never"] = "auto"
    """Whether a message is sent again if nobody can tell whether it has arrived, because the answer was lost or the
    worker died. `auto`: yes with a message service, which recognises the key of a repeated message; no by e-mail.
    `always`, `never`: for either. A message that is not sent again fails; you can requeue it."""
    circuit_breaker_failure_threshold: int = Field(default=20, ge=1)
    """Failures in a row that open the circuit."""
    circuit_breaker_reset_timeout: PositiveDuration = timedelta(seconds=30)
    """Time until an open circuit lets a probe through."""
    retention_days: int = Field(default=90, ge=1, le=36_500)
    """A message is removed this many days after its outcome; not less than CATCH_UP_WINDOW."""
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(parse_api_keys)] = ()
    """Keys of clients, as comma-separated `name:sha256hex:scope` entries. Default: none: the API answers on loopback
    only."""
    protect: Annotated[tuple[Protected, ...], NoDecode, BeforeValidator(parse_protected)] = ()
    """Which of `metrics` (`/metrics`), `health` (`/health` and all below) and `docs` (`/docs`, `/openapi.json`) need an
    API key, of any scope. Default: none."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(parse_networks)] = ()
    """Networks of reverse proxies, such as `127.0.0.1,10.0.0.0/8`, whose `Forwarded` and `X-Forwarded-For` say who the
    client is. Default: none."""
    cors_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_origins)] = ()
    """Origins of web pages whose scripts may call the API, such as `https://app.example.com,http://localhost:5173`.
    Default: none."""
    rate_limit: Annotated[int, BeforeValidator(parse_rate)] = 0
    """Requests per second and client, such as `50/s`; 0 is no limit."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """`debug`, `info`, `warning` or `error`."""
    log_format: Literal["json", "console"] | None = None
    """`json` or `console`. Default: json; console where the log goes to a terminal."""
    log_file: Path | None = None
    """File for the log, reopened on SIGUSR1. Default: standard error."""
    event_loop_debug: bool = False
    """Log `event_loop.blocked` with the place of every call that holds the event loop up for 5 ms; costs some CPU."""
    otel_traces_exporter: Literal["none", "otlp", "console"] = "none"
    """Where traces go: `none`, `otlp` or `console`; needs the extra `otel`."""
    start_timeout: Annotated[timedelta, BeforeValidator(parse_duration)] = timedelta(seconds=60)
    """How long a start waits for a database or RabbitMQ that is away, before it ends with status 1; 0 does not wait."""
    shutdown_timeout: PositiveDuration = timedelta(seconds=30)
    """How long draining may take."""
    birthday_commit: Annotated[str, Field(pattern=r"^[\w.+/-]{1,64}$")] | None = None
    """Commit that the program was built from, as `birthday status` and `build_info` show it; the image sets it.
    Default: what the installation tells."""
    birthday_data_dir: Path = Path(".birthday")
    """Directory of the embedded PostgreSQL."""
    http_proxy: SecretStr | None = None
    """Proxy on the way to a message service with `http://`, such as `http://proxy.example.com:3128`."""
    https_proxy: SecretStr | None = None
    """The same for one with `https://`: the proxy opens a tunnel."""
    all_proxy: SecretStr | None = None
    """The same for either."""
    no_proxy: str | None = None
    """Hosts that are reached without a proxy: names (with all below them), addresses, networks, or `*`."""
    ssl_cert_file: Path | None = None
    """PEM file of the only certificate authorities that the message service or mail server may have. Default: the
    system's certificates."""

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, object]) -> dict[str, object]:
        """Remove white space around each value. A value that is empty then counts as not set."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator(
        *(
            "channel",
            "console",
            "database_pooler",
            "log_level",
            "log_format",
            "leap_day",
            "otel_traces_exporter",
            "retry_unknown",
        ),
        mode="before",
    )
    @classmethod
    def _lower(cls, value: object) -> object:
        lowered = value.lower() if isinstance(value, str) else value
        return "warning" if lowered == "warn" else lowered

    @field_validator(
        *(
            "database_url",
            "database_direct_url",
            "rabbitmq_url",
            "message_service_url",
            "smtp_url",
            "smtp_from",
            "public_url",
            "events_url",
        ),
        mode="after",
    )
    @classmethod
    def _check_url(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        checks: dict[str, Callable[[str], object]] = {
            "database_url": check_database_url,
            "database_direct_url": check_database_url,
            "rabbitmq_url": check_amqp_url,
            "message_service_url": check_service_url,
            "events_url": check_service_url,
            "smtp_url": read_smtp_url,
            "smtp_from": read_sender,
            "public_url": check_public_url,
        }
        check = checks[str(info.field_name)]
        if value is not None:
            check(value.get_secret_value() if isinstance(value, SecretStr) else value)
        return value

    @field_validator("host", mode="after")
    @classmethod
    def _unbracket(cls, value: str) -> str:
        """Accept an IPv6 address in brackets, as in a URL."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") and ":" in value else value

    @field_validator("http_proxy", "https_proxy", "all_proxy", mode="after")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else SecretStr(check_proxy_url(value.get_secret_value()))

    @field_validator("ssl_cert_file", mode="after")
    @classmethod
    def _check_authorities(cls, value: Path | None) -> Path | None:
        if value is None:
            return value
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:
            # A file without certificates raises SSLError, which is an OSError.
            why = error.strerror or "it holds no certificate"
            raise ValueError(f"a PEM file of certificate authorities is accepted: {why}") from None
        return value

    @field_validator("message_service_api_key", mode="after")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("a key of printable ASCII characters is accepted, without spaces or line ends")
        return value

    @field_validator("message_service_path", mode="after")
    @classmethod
    def _check_path(cls, value: str) -> str:
        check_path(value)
        return value

    @field_validator("message_service_signing_secret", "events_secret", mode="after")
    @classmethod
    def _check_signing_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_signing_secrets(value.get_secret_value())
        return value

    @field_validator("otel_traces_exporter", mode="after")
    @classmethod
    def _check_tracing(cls, value: str) -> str:
        if value != "none" and not _is_installed("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"):
            raise ValueError(
                "tracing needs the extra 'otel', which is not installed; none is accepted, or install it with "
                "'make install-otel' or pip install 'birthday-scheduler[otel]'"
            )
        return value

    @property
    def direct(self) -> Self:
        """The same settings without the pooler; these ones if DATABASE_DIRECT_URL is not set."""
        if self.database_direct_url is None:
            return self
        past = {"database_url": self.database_direct_url, "database_direct_url": None, "database_pooler": "session"}
        return self.model_copy(update=past)

    @cached_property
    def rules(self) -> Rules:
        """The rules for birthdays that SEND_AT and LEAP_DAY set."""
        return Rules(send_at=self.send_at, leap_day=self.leap_day)

    @property
    def proxies(self) -> dict[str, str]:
        """The URLs of the proxies that are set, by the scheme of the target; ``all`` is any scheme."""
        given = {"http": self.http_proxy, "https": self.https_proxy, "all": self.all_proxy}
        return {scheme: url.get_secret_value() for scheme, url in given.items() if url}

    @property
    def role_names(self) -> str:
        """The roles of the process, as ROLE takes them."""
        return role_names(self.role)

    @property
    def retry(self) -> RetryPolicy:
        """How many attempts a message gets, and the delays between them."""
        unknown = self.retry_unknown == "always" or (self.retry_unknown == "auto" and self.smtp_url is None)
        return RetryPolicy(self.max_attempts, self.retry_base_delay, self.retry_max_delay, unknown)

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for problem in contradictions(self):
            raise ValueError(problem)
        return self


def _is_installed(*distributions: str) -> bool:
    try:
        return all(version(name) for name in distributions)
    except PackageNotFoundError:
        return False
