"""Every setting, read from the environment here and nowhere else, and checked before anything starts.

Relations between settings are validated here too. ``birthday check`` and docs/settings.md list what is defined here.
"""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qs, urlsplit, urlunsplit

from croniter import CroniterBadDateError, croniter
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from birthday.config.dsn import read_database_url
from birthday.config.env_file import parse_env_file, unknown_variables
from birthday.config.urls import ENCODING, amqp_parameters, check_amqp_files, check_escapes, misplaced_at
from birthday.core.occasion import LeapDay, Rules
from birthday.core.retry import RetryPolicy
from birthday.errors import ConfigurationError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, None: 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)
_RATE = re.compile(r"(\d+)(?:/s)?")
_HOST = re.compile(r"(?:\[[^\[\]]+\]|[^:\[\]]*)(?::(\d*))?")
_PORTS = range(1, 65536)
_API_KEY = re.compile(r"([A-Za-z0-9_.-]+):([0-9a-fA-F]{64}):(read|write|admin)")


class Role(StrEnum):
    """What one process may do; any mix is possible."""

    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"


class Scope(StrEnum):
    """What an API key may do: read; read and change users; all of that and handle messages."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client of the API. The key itself is known to the client alone; ``digest`` is its SHA-256 in hex."""

    name: str
    digest: str
    scope: Scope


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_duration(value: object) -> timedelta:
    """Return the duration that a number of seconds or text such as ``500ms``, ``30s``, ``10m``, ``48h`` means."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip().lower())
    if not match:
        raise ValueError("a duration is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h, 7d")
    seconds = float(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"a duration of at most {_LONGEST.days}d is accepted")
    return timedelta(seconds=seconds)


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("a duration greater than 0 is accepted")
    return value


def _parse_time_of_day(value: object) -> time:
    if isinstance(value, time):
        return value
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", str(value).strip())
    if not match:
        raise ValueError("a local time of day is accepted, from 00:00 to 23:59, such as 09:00")
    return time(int(match[1]), int(match[2]), int(match[3] or 0))


def _parse_cron(value: str) -> str:
    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise ValueError("a cron expression of five fields is accepted, such as */5 * * * *")
    try:
        croniter(value, datetime(2028, 1, 1, tzinfo=UTC)).get_next()
    except CroniterBadDateError:
        raise ValueError("a cron expression that some date matches is accepted, such as */5 * * * *") from None
    return value


def _parse_rate(value: object) -> int:
    match = _RATE.fullmatch(str(value).strip())
    if not match:
        raise ValueError("requests per second are accepted, such as 50/s, or 0 for no limit")
    return int(match[1])


def _parse_roles(value: object) -> frozenset[Role]:
    if isinstance(value, (set, frozenset)):
        return frozenset(Role(role) for role in value)
    names = [name.strip() for name in str(value).split(",")]
    if not set(names) <= {role.value for role in Role}:
        raise ValueError("a comma-separated list of api, scheduler and worker is accepted")
    return frozenset(Role(name) for name in names)


def _parse_networks(value: object) -> tuple[Network, ...]:
    if isinstance(value, tuple):
        return value
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in str(value).split(","))
    except ValueError:
        raise ValueError("comma-separated addresses and networks are accepted, such as 127.0.0.1,10.0.0.0/8") from None


def _parse_api_keys(value: object) -> tuple[ApiKey, ...]:
    if isinstance(value, tuple):
        return value
    keys = []
    for entry in str(value).split(","):
        match = _API_KEY.fullmatch(entry.strip())
        if not match:
            # The entry may be a key in clear by mistake: it is not repeated in the error.
            raise ValueError(
                "comma-separated name:sha256hex:scope entries are accepted, with the SHA-256 of the key as 64 hex "
                "digits and a scope of read, write or admin"
            )
        keys.append(ApiKey(match[1], match[2].lower(), Scope(match[3])))
    return tuple(keys)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, BeforeValidator(lambda value: _positive(parse_duration(value)))]
Cron = Annotated[str, BeforeValidator(_parse_cron)]


class Settings(BaseSettings):
    """The settings of one process. Each field is the environment variable of the same name in capitals.

    The text below a field is its line in docs/settings.md; ``Default:`` says what holds where the value itself cannot.
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
    """Database of your own, as `postgresql://user:password@host:5432/database`, with the encoding UTF8. libpq's
    parameters in its query are obeyed, or named in the log as ignored. A pooler must keep sessions (pgbouncer:
    `pool_mode = session`). Default: embedded PostgreSQL in BIRTHDAY_DATA_DIR."""
    database_pool_min: int = Field(default=2, ge=0, le=1000)
    """Connections that are kept open."""
    database_pool_max: int = Field(default=20, ge=4, le=1000)
    """Connections at most, at least 4."""
    rabbitmq_url: SecretStr | None = None
    """RabbitMQ, as `amqp://user:password@host:5672/vhost` or `amqps://`. Default: the queue is kept in PostgreSQL."""
    message_service_url: str | None = None
    """Base URL of the message service; messages are POSTed to `{base}/send`. Default: none: see CHANNEL."""
    message_service_api_key: SecretStr | None = None
    """Sent as `Authorization: Bearer ...`."""
    message_service_timeout: PositiveDuration = timedelta(seconds=10)
    """Time limit of one attempt, connecting included."""
    channel: Literal["console"] | None = None
    """`console` prints greetings on purpose. Without it and without a URL, the role worker does not start on your own
    database or queue. Default: by MESSAGE_SERVICE_URL."""
    host: str = "127.0.0.1"
    """Address of the listener."""
    port: int = Field(default=3000, ge=0, le=65535)
    """Port of the listener; 0 picks a free one and logs it."""
    role: Annotated[frozenset[Role], NoDecode, BeforeValidator(_parse_roles)] = frozenset(Role)
    """Roles of the process, as for `--role`."""
    worker_concurrency: int = Field(default=100, ge=1, le=10_000)
    """Messages that one worker process sends at a time."""
    send_at: Annotated[time, BeforeValidator(_parse_time_of_day)] = time(9)
    """Local time of day. A new one also moves what is planned and not due yet, when a scheduler starts with it."""
    leap_day: LeapDay = LeapDay.FEB28
    """`feb28` or `mar1`: where 29 February falls in other years. A new one moves messages as SEND_AT does."""
    catch_up_window: PositiveDuration = timedelta(hours=48)
    """How late a message may still be sent after downtime."""
    plan_horizon: PositiveDuration = timedelta(hours=48)
    """How far ahead messages are planned."""
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
    circuit_breaker_failure_threshold: int = Field(default=20, ge=1)
    """Failures in a row that open the circuit."""
    circuit_breaker_reset_timeout: PositiveDuration = timedelta(seconds=30)
    """Time until an open circuit lets a probe through."""
    retention_days: int = Field(default=90, ge=1, le=36_500)
    """Finished messages older than this are removed."""
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode, BeforeValidator(_parse_api_keys)] = ()
    """Keys of clients, as comma-separated `name:sha256hex:scope` entries. Default: none: the API answers on loopback
    only."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_parse_networks)] = ()
    """Networks of reverse proxies, such as `127.0.0.1,10.0.0.0/8`, whose `Forwarded` and `X-Forwarded-For` say who the
    client is. Default: none."""
    rate_limit: Annotated[int, BeforeValidator(_parse_rate)] = 0
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
    """PEM file of the only certificate authorities that the message service may have. Default: the system's
    certificates."""

    @model_validator(mode="before")
    @classmethod
    def _strip(cls, values: dict[str, object]) -> dict[str, object]:
        """White space around a value is never meant, and one of nothing else is none: the default holds."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}

    @field_validator("channel", "log_level", "log_format", "leap_day", "otel_traces_exporter", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        lowered = value.lower() if isinstance(value, str) else value
        return "warning" if lowered == "warn" else lowered

    @field_validator("database_url", "rabbitmq_url", "message_service_url", mode="after")
    @classmethod
    def _check_url(cls, value: SecretStr | str | None, info: ValidationInfo) -> SecretStr | str | None:
        schemes, port = {
            "database_url": (("postgresql", "postgres"), 5432),
            "rabbitmq_url": (("amqp", "amqps"), 5672),
            "message_service_url": (("http", "https"), 8080),
        }[str(info.field_name)]
        if value is None:
            return value
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        parts = _split(text)
        is_service = info.field_name == "message_service_url"
        if parts is None or parts.scheme not in schemes:
            hint = f"; {ENCODING}" if parts is None and "@" in text else ""
            raise ValueError(f"a URL that starts with {schemes[0]}:// is accepted{hint}")
        # The path of a message service may have an @ in it.
        if misplaced_at(parts, in_path=not (is_service and _has_fine_ports(parts, several=False))):
            raise ValueError(f"a URL with user, password and host is accepted; {ENCODING}")
        if not _has_fine_ports(parts, several=info.field_name == "database_url"):
            raise ValueError(f"a URL with a port from 1 to 65535 is accepted, such as {schemes[0]}://localhost:{port}")
        # A DSN of PostgreSQL may name several hosts, or none, and more in its query: asyncpg reads it.
        if info.field_name != "database_url" and not parts.hostname:
            raise ValueError(f"a URL with a host is accepted, such as {schemes[0]}://localhost")
        check_escapes(parts)
        if parts.fragment or text.endswith("#"):
            raise ValueError("a URL without # is accepted: what follows would be ignored; %23 is a # in a name")
        if info.field_name == "database_url":
            read_database_url(text)
        if info.field_name == "rabbitmq_url":
            check_amqp_files(amqp_parameters(parts))
        return value

    @field_validator("host", mode="after")
    @classmethod
    def _unbracket(cls, value: str) -> str:
        """An IPv6 address may be written as in a URL."""
        return value[1:-1] if value.startswith("[") and value.endswith("]") and ":" in value else value

    @field_validator("http_proxy", "https_proxy", "all_proxy", mode="after")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        url = value.get_secret_value() if "://" in value.get_secret_value() else f"http://{value.get_secret_value()}"
        parts = _split(url)
        if parts is None or parts.scheme != "http" or not parts.hostname or not _has_fine_ports(parts, several=False):
            raise ValueError("the URL of an HTTP proxy is accepted, such as http://proxy.example.com:3128")
        return SecretStr(url)

    @field_validator("ssl_cert_file", mode="after")
    @classmethod
    def _check_authorities(cls, value: Path | None) -> Path | None:
        if value is None:
            return value
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:
            # An SSLError, which a file without certificates raises, is one too.
            why = error.strerror or "it holds no certificate"
            raise ValueError(f"a PEM file of certificate authorities is accepted: {why}") from None
        return value

    @field_validator("message_service_api_key", mode="after")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("a key of printable ASCII characters is accepted, without spaces or line ends")
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

    @cached_property
    def rules(self) -> Rules:
        """What this installation decides about birthdays."""
        return Rules(send_at=self.send_at, leap_day=self.leap_day)

    @property
    def proxies(self) -> dict[str, str]:
        """The URLs of the proxies that are set, by the scheme that they are for; ``all`` is any."""
        given = {"http": self.http_proxy, "https": self.https_proxy, "all": self.all_proxy}
        return {scheme: url.get_secret_value() for scheme, url in given.items() if url}

    @property
    def role_names(self) -> str:
        """The roles of the process, as ROLE takes them."""
        return _role_names(self.role)

    @property
    def retry(self) -> RetryPolicy:
        """How attempts of one message follow each other."""
        return RetryPolicy(self.max_attempts, self.retry_base_delay, self.retry_max_delay)

    @model_validator(mode="after")
    def _check_relations(self) -> Self:
        for problem in self._contradictions():
            raise ValueError(problem)
        return self

    def _contradictions(self) -> Iterator[str]:
        if self.database_pool_min > self.database_pool_max:
            yield (
                f"DATABASE_POOL_MIN={self.database_pool_min} and DATABASE_POOL_MAX={self.database_pool_max} contradict "
                "each other: a minimum that is not above the maximum is accepted"
            )
        if self.retry_base_delay > self.retry_max_delay:
            yield (
                f"RETRY_BASE_DELAY={show_duration(self.retry_base_delay)} and "
                f"RETRY_MAX_DELAY={show_duration(self.retry_max_delay)} contradict each other: a base that is not "
                "above the maximum is accepted"
            )
        if self.message_service_api_key and "@" in urlsplit(self.message_service_url or "").netloc:
            yield (
                f"MESSAGE_SERVICE_URL={mask_url(self.message_service_url or '')} and MESSAGE_SERVICE_API_KEY=*** "
                "contradict each other: a user in the URL or a key is accepted, not both"
            )
        if self.message_service_url and self.channel:
            yield (
                f"MESSAGE_SERVICE_URL={mask_url(self.message_service_url)} and CHANNEL={self.channel} contradict each "
                "other: one of them is accepted, since greetings are either sent or printed"
            )
        gap = _longest_gap(self.cron_plan)
        if gap > self.plan_horizon:
            yield (
                f"CRON_PLAN='{self.cron_plan}' and PLAN_HORIZON={show_duration(self.plan_horizon)} contradict each "
                f"other: the planner would pause for up to {show_duration(gap)}; a horizon of at least that is accepted"
            )


def _is_installed(*distributions: str) -> bool:
    try:
        return all(version(name) for name in distributions)
    except PackageNotFoundError:
        return False


def _role_names(roles: frozenset[Role]) -> str:
    return ",".join(role for role in Role if role in roles)


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach a listener on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def show_duration(value: timedelta) -> str:
    """Return a duration the way the settings take it: ``48h``, ``10m``, ``2s``, ``500ms``."""
    milliseconds = round(value.total_seconds() * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL, None if it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _has_fine_ports(parts: SplitResult, *, several: bool) -> bool:
    """Say whether each port of a URL is one; a DSN of PostgreSQL may have ``several``, in its query as well."""
    authority = parts.netloc.rpartition("@")[2]
    hosts = authority.split(",") if several else [authority]
    matches = [_HOST.fullmatch(host) for host in hosts]
    ports = [match[1] for match in matches if match and match[1]]
    if several:
        ports += [port for value in parse_qs(parts.query).get("port", []) for port in value.split(",")]
    return None not in matches and all(port.isdecimal() and int(port) in _PORTS for port in ports)


def mask_url(url: str) -> str:
    """Return a URL without its password and query, fit for a log line."""
    parts = urlsplit(url)
    if "@" in parts.path + parts.query + parts.fragment:
        # A password with one of / ? # in it, which ends what a URL says of users and hosts.
        return f"{parts.scheme}://***"
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:***@" if parts.password else f"{parts.username}@" if parts.username else ""
    return urlunsplit((parts.scheme, f"{user}{host}", parts.path, "", ""))


def load_settings(**overrides: object) -> Settings:
    """Read the environment; ``overrides`` (flags of the command line) win over it.

    Raises:
        ConfigurationError: one line for each bad value, with the variable, the value and what is accepted.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(error, given))) from None


def apply_env_file(path: Path) -> None:
    """Set the variables of a file in the environment of this process, where they win over those that are there.

    Libraries read the environment, too: the SDK of OpenTelemetry, for example.

    Raises:
        ConfigurationError: if it cannot be read, or a line of it means different things to those who read such files.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--env-file {path}: {error.strerror}; a file that can be read is accepted") from None
    except UnicodeDecodeError as error:
        number = bytes(error.object).count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {number}: text in UTF-8 is accepted") from None
    os.environ.update(parse_env_file(text, str(path)))


def misspelt_settings() -> dict[str, str]:
    """Return the variables of the environment that resemble a setting without being one, each with that setting."""
    return unknown_variables(os.environ, Settings.model_fields)


def check_channel(settings: Settings) -> None:
    """Make sure that a service with these settings does not print by mistake what it should send.

    Raises:
        ConfigurationError: if the role worker has a database or a queue of its own, and no channel was chosen.
    """
    chosen = settings.message_service_url or settings.channel
    if chosen or Role.WORKER not in settings.role or not (settings.database_url or settings.rabbitmq_url):
        return
    hints = "".join(f"; {name} is not a setting, did you mean {one}?" for name, one in misspelt_settings().items())
    raise ConfigurationError(
        "MESSAGE_SERVICE_URL is not set, and the role worker would print the greetings of a real database or queue "
        f"instead of sending them: set MESSAGE_SERVICE_URL, or CHANNEL=console to print them on purpose{hints}"
    )


def check_listener(settings: Settings) -> None:
    """Make sure that a service with these settings lets nobody in who should not be. Other commands do not listen.

    Raises:
        ConfigurationError: anybody could use its API.
    """
    if Role.API in settings.role and not settings.api_keys and not is_loopback(settings.host):
        raise ConfigurationError(
            f"HOST={settings.host} without API_KEYS would let anybody use the API: set API_KEYS to "
            "name:sha256hex:scope entries, or HOST to a loopback address such as 127.0.0.1"
        )


def _explain(error: ValidationError, given: dict[str, object]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_input=False):
        reason = _reason(problem["type"], problem["msg"], problem.get("ctx", {}))
        if not problem["loc"]:
            yield reason
            continue
        name = str(problem["loc"][0])
        yield f"{name.upper()}={_shown_value(name, given)}: {reason}"


def _shown_value(name: str, given: dict[str, object]) -> str:
    value = str(given.get(name) or os.environ.get(name.upper()) or os.environ.get(name) or "")
    if name in {"message_service_api_key", "api_keys"}:
        return "***"
    if not name.endswith(("_url", "_proxy")) or name == "no_proxy":
        return f"'{value}'"
    try:
        # What is no URL may be a password all the same: user:password@host.
        return f"'{mask_url(value)}'" if "://" in value else "***"
    except ValueError:
        return "***"


def _reason(kind: str, message: str, context: dict[str, Any]) -> str:
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in {"int_parsing", "int_from_float", "int_type"}:
        return "a whole number is accepted"
    if kind == "bool_parsing":
        return "true or false is accepted"
    if kind == "greater_than_equal":
        return f"a number of at least {context['ge']} is accepted"
    if kind == "less_than_equal":
        return f"a number of at most {context['le']} is accepted"
    if kind == "string_pattern_mismatch":
        return "the id of a commit or the name of a release is accepted: letters, digits and . _ + / -, 64 at most"
    if kind in {"literal_error", "enum"}:
        return f"{context['expected']} is accepted"
    return message


def _longest_gap(expression: str) -> timedelta:
    """Return the longest pause between two ticks: within a day on which there are any, or over a midnight.

    A year and a leap day are looked at. Which minutes a day has is the same for all days that have any.
    """
    start = datetime(2028, 1, 1, tzinfo=UTC)
    ticks = croniter(expression, start - timedelta(seconds=1))
    within = [ticks.get_next(datetime)]
    while (tick := ticks.get_next(datetime)).date() == within[0].date():
        within.append(tick)
    gaps = [later - earlier for earlier, later in pairwise(within)]
    midnight = start
    every_day = expression.split()[2:] == ["*", "*", "*"]
    while midnight < start + timedelta(days=2 if every_day else 366):
        following = croniter(expression, midnight - timedelta(seconds=1)).get_next(datetime)
        gaps.append(following - croniter(expression, midnight).get_prev(datetime))
        # None in between: the next midnight after which there may be another gap.
        midnight = following.replace(hour=0, minute=0) + timedelta(days=1)
    return max(gaps)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """One setting as it is in force, fit to be shown: secrets are masked."""

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


def _show_entry(entry: object) -> str:
    return f"{entry.name}:***:{entry.scope}" if isinstance(entry, ApiKey) else str(entry)


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


def shared_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that must be the same in all processes, as they are written. None of them is a secret.

    Of RABBITMQ_URL that is whether it is set: processes may reach one cluster by several URLs, and two queues are two
    worlds.
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
            return _role_names(value)
        case tuple():
            return ",".join(_show_entry(entry) for entry in value) or "-"
        case _:
            return mask_url(str(value)) if "://" in str(value) else str(value)
