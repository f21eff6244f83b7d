"""The settings: what the environment may say, and what is answered to what it may not."""

import os
from datetime import time, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from birthday.config import (
    ApiKey,
    Protected,
    Role,
    Scope,
    Settings,
    SmtpServer,
    Tls,
    apply_env_file,
    check_channel,
    check_listener,
    effective_settings,
    is_loopback,
    load_settings,
    mask_url,
    parse_duration,
    read_sender,
    read_smtp_url,
    show_duration,
)
from birthday.core.occasion import LeapDay, Rules
from birthday.core.retry import RetryPolicy
from birthday.errors import ConfigurationError

DIGEST = "0123456789abcdef" * 4
WHSEC = "whsec_plJ3nmyCDGBKInavdOK15jsl"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any setting, to which a test adds its own."""
    names = {name.upper() for name in Settings.model_fields}
    for name in list(os.environ):
        if name.upper() in names:
            monkeypatch.delenv(name)
    return monkeypatch


def test_defaults() -> None:
    """With an empty environment the settings are the defaults of the design, section 2."""
    loaded = load_settings()

    assert {name: getattr(loaded, name) for name in Settings.model_fields} == {
        "database_url": None,
        "database_direct_url": None,
        "database_pooler": "session",
        "database_pool_min": 2,
        "database_pool_max": 20,
        "rabbitmq_url": None,
        "message_service_url": None,
        "public_url": None,
        "message_service_path": "/send",
        "message_service_api_key": None,
        "message_service_signing_secret": None,
        "message_service_timeout": timedelta(seconds=10),
        "smtp_url": None,
        "smtp_from": None,
        "events_url": None,
        "events_secret": None,
        "events_allow_private": False,
        "channel": None,
        "console": "on",
        "host": "127.0.0.1",
        "port": 3000,
        "role": frozenset(Role),
        "worker_concurrency": 100,
        "send_at": time(9),
        "leap_day": LeapDay.FEB28,
        "catch_up_window": timedelta(hours=48),
        "plan_horizon": timedelta(hours=48),
        "dispatch_ahead": timedelta(seconds=10),
        "cron_plan": "*/5 * * * *",
        "cron_recover": "* * * * *",
        "cron_retention": "30 2 * * *",
        "max_attempts": 5,
        "retry_base_delay": timedelta(seconds=2),
        "retry_max_delay": timedelta(minutes=10),
        "retry_unknown": "auto",
        "circuit_breaker_failure_threshold": 20,
        "circuit_breaker_reset_timeout": timedelta(seconds=30),
        "retention_days": 90,
        "api_keys": (),
        "trusted_proxies": (),
        "cors_origins": (),
        "protect": (),
        "rate_limit": 0,
        "log_level": "info",
        "log_format": None,
        "log_file": None,
        "event_loop_debug": False,
        "otel_traces_exporter": "none",
        "start_timeout": timedelta(seconds=60),
        "shutdown_timeout": timedelta(seconds=30),
        "birthday_commit": None,
        "birthday_data_dir": Path(".birthday"),
        "http_proxy": None,
        "https_proxy": None,
        "all_proxy": None,
        "no_proxy": None,
        "ssl_cert_file": None,
    }


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MESSAGE_SERVICE_URL", "https://messages.example.com/v1", "https://messages.example.com/v1"),
        ("PUBLIC_URL", "https://example.com/greetings", "https://example.com/greetings"),
        ("MESSAGE_SERVICE_TIMEOUT", "2.5", timedelta(seconds=2.5)),
        ("PORT", "0", 0),
        ("ROLE", "worker", frozenset({Role.WORKER})),
        ("ROLE", "api, scheduler", frozenset({Role.API, Role.SCHEDULER})),
        ("SEND_AT", "00:00", time(0)),
        ("SEND_AT", "23:59", time(23, 59)),
        ("SEND_AT", "08:30:15", time(8, 30, 15)),
        ("LEAP_DAY", "mar1", LeapDay.MAR1),
        ("LEAP_DAY", "MAR1", LeapDay.MAR1),
        ("CATCH_UP_WINDOW", "7d", timedelta(days=7)),
        ("PLAN_HORIZON", "36h", timedelta(hours=36)),
        ("DISPATCH_AHEAD", "0", timedelta()),
        ("DISPATCH_AHEAD", "30s", timedelta(seconds=30)),
        ("RETRY_BASE_DELAY", "500ms", timedelta(milliseconds=500)),
        ("CRON_RECOVER", "*/2 * * * *", "*/2 * * * *"),
        (
            "CORS_ORIGINS",
            "https://app.example.com, http://localhost:5173,http://[::1]:8080,capacitor://localhost",
            ("https://app.example.com", "http://localhost:5173", "http://[::1]:8080", "capacitor://localhost"),
        ),
        ("RATE_LIMIT", "50/s", 50),
        ("RATE_LIMIT", "50", 50),
        ("PROTECT", "docs, Metrics", (Protected.METRICS, Protected.DOCS)),
        ("BIRTHDAY_COMMIT", "d08d139790f58b63f0e83e6e603bd375380d1184", "d08d139790f58b63f0e83e6e603bd375380d1184"),
        ("BIRTHDAY_COMMIT", "v1.2.3", "v1.2.3"),
        ("API_KEYS", f"ops:{DIGEST}:admin", (ApiKey("ops", DIGEST, Scope.ADMIN),)),
        (
            "API_KEYS",
            f"ci:{DIGEST.upper()}:read, app-1:{DIGEST}:write",
            (ApiKey("ci", DIGEST, Scope.READ), ApiKey("app-1", DIGEST, Scope.WRITE)),
        ),
        *(
            ("DATABASE_URL", url, SecretStr(url))
            for url in (
                "postgresql://",
                "postgresql:///db?host=/tmp&port=5432,5433",
                "postgres://one,two:5433,[::1]:5434/db",
                "postgresql://ada@%2Ftmp%2Fsockets:5432/db",
            )
        ),
        ("LOG_LEVEL", "WARN", "warning"),
        ("LOG_FORMAT", "Console", "console"),
        ("LOG_FILE", "birthday.log", Path("birthday.log")),
        ("CHANNEL", "Console", "console"),
        ("HOST", "[::1]", "::1"),
        ("MESSAGE_SERVICE_URL", "http://localhost/@tenant?key=a@b", "http://localhost/@tenant?key=a@b"),
        *(
            ("RABBITMQ_URL", url, SecretStr(url))
            for url in (
                "amqp://ada:p%2Fw@localhost/%2f?heartbeat=30&name=birthday",
                "amqps://localhost?verify=verify_none",
                "amqps://localhost?no_verify_ssl=1",
                "amqp://ada:p%2Cw@one:5672,two,[::1]:5673/vhost?heartbeat=5",
            )
        ),
        ("DATABASE_URL", " postgresql://localhost/db\n", SecretStr("postgresql://localhost/db")),
        ("MESSAGE_SERVICE_API_KEY", "key\r\n", SecretStr("key")),
        ("MESSAGE_SERVICE_URL", "\thttp://localhost ", "http://localhost"),
        ("HOST", " 127.0.0.1 ", "127.0.0.1"),
        ("LOG_FILE", " birthday.log\n", Path("birthday.log")),
        ("LOG_LEVEL", " info ", "info"),
        ("LEAP_DAY", " mar1 ", LeapDay.MAR1),
        ("API_KEYS", " \n", ()),
        ("PORT", " 4000\n", 4000),
        ("PORT", "", 3000),
        ("LOG_FILE", "", None),
    ],
)
def test_accepted(environment: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    """Each form that is documented is read, and an empty value means the default."""
    environment.setenv(name, text)

    assert getattr(load_settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "accepted"),
    [
        ("DATABASE_POOL_MAX", "many", "a whole number is accepted"),
        ("DATABASE_POOL_MAX", "3", "a number of at least 4 is accepted"),
        ("PORT", "65536", "a number of at most 65535 is accepted"),
        ("PORT", "-1", "a number of at least 0 is accepted"),
        ("WORKER_CONCURRENCY", "1.5", "a whole number is accepted"),
        ("WORKER_CONCURRENCY", "0", "a number of at least 1 is accepted"),
        ("MAX_ATTEMPTS", "0", "a number of at least 1 is accepted"),
        ("RETENTION_DAYS", "0", "a number of at least 1 is accepted"),
        ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "0", "a number of at least 1 is accepted"),
        ("MESSAGE_SERVICE_URL", "ftp://example.com", "a URL that starts with http:// is accepted"),
        ("PUBLIC_URL", "ftp://example.com", "a URL that starts with http:// is accepted"),
        ("PUBLIC_URL", "https://ada@example.com", "a URL without user and query is accepted, such as https://"),
        ("MESSAGE_SERVICE_URL", "http://", "a URL with a host is accepted, such as http://localhost"),
        ("CRON_PLAN", "0 0 30 2 *", "a cron expression that some date matches is accepted, such as */5 * * * *"),
        ("CRON_RECOVER", "0 0 30 2 *", "a cron expression that some date matches is accepted, such as */5 * * * *"),
        ("DATABASE_URL", "mysql://example.com/db", "a URL that starts with postgresql:// is accepted"),
        ("RABBITMQ_URL", "http://example.com", "a URL that starts with amqp:// is accepted"),
        *(
            ("DATABASE_URL", url, "a URL with a port from 1 to 65535 is accepted, such as postgresql://localhost:5432")
            for url in (
                "postgresql://example.com:db",
                "postgresql://example.com:0/db",
                "postgresql://one:5432,two:65536/db",
                "postgresql://[::1]:x/db",
            )
        ),
        (
            "RABBITMQ_URL",
            "amqp://example.com:mq",
            "a URL with a port from 1 to 65535 is accepted, such as amqp://localhost:5672",
        ),
        ("MESSAGE_SERVICE_TIMEOUT", "0", "a duration greater than 0 is accepted"),
        (
            "MESSAGE_SERVICE_TIMEOUT",
            "-1s",
            "a duration is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h",
        ),
        ("CATCH_UP_WINDOW", "2 days", "a duration is accepted: seconds as a plain number, or 500ms, 30s, 10m, 48h"),
        ("CATCH_UP_WINDOW", "3651d", "a duration of at most 3650d is accepted"),
        ("DISPATCH_AHEAD", "31s", "a duration of at most 30s is accepted"),
        ("SHUTDOWN_TIMEOUT", "0.0000001s", "a duration greater than 0 is accepted"),
        ("SEND_AT", "9:00", "a local time of day is accepted, from 00:00 to 23:59, such as 09:00"),
        ("SEND_AT", "24:00", "a local time of day is accepted, from 00:00 to 23:59, such as 09:00"),
        ("SEND_AT", "09:60", "a local time of day is accepted, from 00:00 to 23:59, such as 09:00"),
        ("LEAP_DAY", "feb29", "'feb28' or 'mar1' is accepted"),
        ("ROLE", "api,cook", "a comma-separated list of api, scheduler and worker is accepted"),
        ("ROLE", ",", "a comma-separated list of api, scheduler and worker is accepted"),
        ("CRON_PLAN", "every five minutes", "a cron expression of five fields is accepted, such as */5 * * * *"),
        ("CRON_PLAN", "* * * * * *", "a cron expression of five fields is accepted, such as */5 * * * *"),
        ("CRON_RECOVER", "61 * * * *", "a cron expression of five fields is accepted, such as */5 * * * *"),
        ("CRON_RETENTION", "@daily", "a cron expression of five fields is accepted, such as */5 * * * *"),
        ("TRUSTED_PROXIES", "proxy.example", "comma-separated addresses and networks are accepted"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "comma-separated addresses and networks are accepted"),
        *(
            ("CORS_ORIGINS", origins, "comma-separated origins are accepted as browsers send them, such as https://")
            for origins in (
                "*",
                "null",
                "app.example.com",
                "https://app.example.com/",
                "https://App.example.com",
                "https://app.example.com:443",
                "http://localhost:80",
                "https://app.example.com,",
                "https://app.example.com https://b.example.com",
            )
        ),
        ("PROTECT", "metrics,ready", "a comma-separated list of metrics, health and docs is accepted"),
        ("RATE_LIMIT", "50/m", "requests per second are accepted, such as 50/s, or 0 for no limit"),
        ("RATE_LIMIT", "-1", "requests per second are accepted, such as 50/s, or 0 for no limit"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error' is accepted"),
        ("LOG_FORMAT", "xml", "'json' or 'console' is accepted"),
        ("EVENT_LOOP_DEBUG", "maybe", "true or false is accepted"),
    ],
)
def test_refused(environment: pytest.MonkeyPatch, name: str, text: str, accepted: str) -> None:
    """A bad value is answered with one line: the variable, the value and what is accepted."""
    environment.setenv(name, text)

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert str(raised.value).startswith(f"{name}='{text}': {accepted}")
    assert "\n" not in str(raised.value)


def test_every_bad_value_has_a_line(environment: pytest.MonkeyPatch) -> None:
    """Several bad values are answered together, a line for each."""
    environment.setenv("PORT", "http")
    environment.setenv("SEND_AT", "noon")

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert [line.split("=")[0] for line in str(raised.value).splitlines()] == ["PORT", "SEND_AT"]


@pytest.mark.parametrize(
    ("given_settings", "named"),
    [
        ({"DATABASE_POOL_MIN": "30", "DATABASE_POOL_MAX": "10"}, ["DATABASE_POOL_MIN=30", "DATABASE_POOL_MAX=10"]),
        ({"DATABASE_POOLER": "transaction"}, ["DATABASE_POOLER=transaction", "without DATABASE_URL"]),
        ({"DATABASE_DIRECT_URL": "postgresql://localhost/db"}, ["DATABASE_DIRECT_URL", "without DATABASE_URL"]),
        ({"RETRY_BASE_DELAY": "2m", "RETRY_MAX_DELAY": "30s"}, ["RETRY_BASE_DELAY=2m", "RETRY_MAX_DELAY=30s"]),
        ({"RETENTION_DAYS": "1"}, ["RETENTION_DAYS=1", "CATCH_UP_WINDOW=48h"]),
        ({"RETENTION_DAYS": "9", "CATCH_UP_WINDOW": "10d"}, ["RETENTION_DAYS=9", "CATCH_UP_WINDOW=240h"]),
        ({"CRON_PLAN": "0 4 * * 1", "PLAN_HORIZON": "48h"}, ["CRON_PLAN='0 4 * * 1'", "PLAN_HORIZON=48h", "168h"]),
        ({"PLAN_HORIZON": "4m"}, ["CRON_PLAN='*/5 * * * *'", "PLAN_HORIZON=4m"]),
        ({"CRON_PLAN": "* 0 * * 1"}, ["CRON_PLAN='* 0 * * 1'", "PLAN_HORIZON=48h", "10021m"]),
        ({"CRON_PLAN": "* 9 * * *", "PLAN_HORIZON": "6h"}, ["CRON_PLAN='* 9 * * *'", "PLAN_HORIZON=6h", "1381m"]),
        ({"CRON_PLAN": "0 * * 1 *"}, ["CRON_PLAN='0 * * 1 *'", "8041h"]),
        ({"CRON_PLAN": "0 0 29 2 *"}, ["CRON_PLAN='0 0 29 2 *'", "35064h"]),
        (
            {"MESSAGE_SERVICE_URL": "https://ada:s3cret@example.com", "MESSAGE_SERVICE_API_KEY": "k3y"},
            ["MESSAGE_SERVICE_URL=https://ada:***@example.com", "MESSAGE_SERVICE_API_KEY=***"],
        ),
    ],
)
def test_contradiction(environment: pytest.MonkeyPatch, given_settings: dict[str, str], named: list[str]) -> None:
    """Two settings that contradict each other are both named, with their values."""
    for name, text in given_settings.items():
        environment.setenv(name, text)

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert all(part in str(raised.value) for part in named)
    assert "\n" not in str(raised.value)


def test_the_defaults_contradict_nothing(environment: pytest.MonkeyPatch) -> None:
    """The default horizon covers the longest pause of the default CRON_PLAN, which is looked at only if one is set."""
    environment.setenv("CRON_PLAN", str(Settings.model_fields["cron_plan"].default))

    load_settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "birthday.example.com"])  # noqa: S104 - To be refused is the point.
def test_open_api(environment: pytest.MonkeyPatch, host: str) -> None:
    """A service that anybody could use is refused; commands, which do not listen, work with the same settings."""
    environment.setenv("HOST", host)
    loaded = load_settings()

    with pytest.raises(ConfigurationError) as raised:
        check_listener(loaded)

    assert all(part in str(raised.value) for part in (f"HOST={host}", "API_KEYS"))


@pytest.mark.parametrize(
    "given_settings",
    [
        {"HOST": "127.0.0.1"},
        {"HOST": "0.0.0.0", "ROLE": "scheduler,worker"},  # noqa: S104 - Without the API there is nothing to use.
        {"HOST": "0.0.0.0", "API_KEYS": f"ops:{DIGEST}:admin"},  # noqa: S104 - With keys it is meant to be reached.
    ],
)
def test_closed_api(environment: pytest.MonkeyPatch, given_settings: dict[str, str]) -> None:
    """A loopback address needs no keys, and a public one is fine with keys or without the API."""
    for name, text in given_settings.items():
        environment.setenv(name, text)

    check_listener(load_settings())


@pytest.mark.parametrize(
    "given_settings",
    [
        {"DATABASE_POOL_MIN": "10", "DATABASE_POOL_MAX": "10"},
        {"RETRY_BASE_DELAY": "30s", "RETRY_MAX_DELAY": "30s"},
        {"RETENTION_DAYS": "1", "CATCH_UP_WINDOW": "24h"},
        {"CRON_PLAN": "0 4 * * *", "PLAN_HORIZON": "24h"},
        {"CRON_PLAN": "* 0,12 * * *", "PLAN_HORIZON": "661m"},
    ],
)
def test_no_contradiction(environment: pytest.MonkeyPatch, given_settings: dict[str, str]) -> None:
    """At the limit nothing is refused."""
    for name, text in given_settings.items():
        environment.setenv(name, text)

    load_settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_KEYS", "ops:s3cret:admin"),
        ("API_KEYS", f"s3cret:{DIGEST}:root"),
        ("DATABASE_URL", "mysql://ada:s3cret@example.com/db"),
        ("RABBITMQ_URL", "http://ada:s3cret@example.com"),
        ("MESSAGE_SERVICE_URL", "ftp://ada:s3cret@example.com?key=s3cret"),
        ("MESSAGE_SERVICE_URL", "ada:s3cret@example.com"),
        ("MESSAGE_SERVICE_URL", "http://ada:s3cret@example.com:99999"),
        ("DATABASE_URL", "ada:s3cret@example.com/db"),
        ("DATABASE_URL", "mysql://example.com/db?password=s3cret"),
        ("DATABASE_URL", "postgresql://ada:s3cret@[::1/db"),
        ("DATABASE_URL", "postgresql://ada:s3cret@example.com:port/db"),
        ("DATABASE_URL", "postgresql://ada:s3cret@/db?host=example.com&port=x"),
        ("DATABASE_URL", "postgresql://ada:s3cret/1@example.com/db"),
        ("RABBITMQ_URL", "amqp://ada:s3cret?@example.com"),
        ("RABBITMQ_URL", "amqp://ada:s3cret@one,ada:s3cret@two"),
        ("HTTP_PROXY", "http://ada:s3cret@proxy.example.com:port"),
        ("MESSAGE_SERVICE_API_KEY", "s3cret\nx"),
        ("MESSAGE_SERVICE_API_KEY", "s3cret\u00fc"),
        ("MESSAGE_SERVICE_SIGNING_SECRET", "s3cret"),
        ("MESSAGE_SERVICE_SIGNING_SECRET", "whsec_s3cret"),
        ("EVENTS_SECRET", "whsec_s3cret"),
        ("EVENTS_URL", "ftp://ada:s3cret@example.com"),
        ("MESSAGE_SERVICE_SIGNING_SECRET", f"{WHSEC} whsec_s3cret"),
        ("MESSAGE_SERVICE_SIGNING_SECRET", f"{WHSEC} {WHSEC} {WHSEC} s3cret"),
        ("MESSAGE_SERVICE_PATH", "send?sig=s3cret"),
        ("SMTP_URL", "smtp://ada:s3cret@mail.example.com/path"),
        ("SMTP_URL", "smtp://ada:s3cret@mail.example.com:port"),
        ("SMTP_URL", "smtp://ada:s3cret@mail.example.com?starttls=maybe"),
        ("SMTP_URL", "ada:s3cret@mail.example.com"),
        ("MESSAGE_SERVICE_PATH", "/send?sig=s3cret#"),
        ("MESSAGE_SERVICE_PATH", "/%/a-long-token-that-is-s3cret"),
    ],
)
def test_no_secret_in_error(environment: pytest.MonkeyPatch, name: str, text: str) -> None:
    """An error names the variable, and never repeats a key or a password."""
    environment.setenv(name, text)

    with pytest.raises(ConfigurationError) as raised:
        load_settings()

    assert str(raised.value).startswith(f"{name}=")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    "given_settings",
    [
        {"DATABASE_URL": "postgresql://localhost/db"},
        {"RABBITMQ_URL": "amqp://localhost"},
        {"DATABASE_URL": "postgresql://localhost/db", "ROLE": "worker"},
        {"DATABASE_URL": "postgresql://localhost/db", "MESSAGE_SERVICE_URL": " "},
    ],
)
def test_a_worker_of_a_real_installation_needs_a_channel(
    environment: pytest.MonkeyPatch, given_settings: dict[str, str]
) -> None:
    """Without one it would print what it should send; the error says how to print on purpose, and what was misspelt."""
    for name, text in (given_settings | {"MESAGE_SERVICE_URL": "http://localhost"}).items():
        environment.setenv(name, text)

    with pytest.raises(ConfigurationError, match=r"MESSAGE_SERVICE_URL.*CHANNEL=console.*MESAGE_SERVICE_URL is not a"):
        check_channel(load_settings())


@pytest.mark.parametrize(
    "given_settings",
    [
        {},
        {"DATABASE_URL": "postgresql://localhost/db", "CHANNEL": "console"},
        {"DATABASE_URL": "postgresql://localhost/db", "MESSAGE_SERVICE_URL": "http://localhost"},
        {"DATABASE_URL": "postgresql://localhost/db", "ROLE": "api,scheduler"},
        {"DATABASE_URL": "postgresql://localhost/db", "SMTP_URL": "smtp://localhost", "SMTP_FROM": "a@example.com"},
    ],
)
def test_a_channel_is_chosen_or_not_needed(environment: pytest.MonkeyPatch, given_settings: dict[str, str]) -> None:
    """By CHANNEL, by a URL, by a process that sends nothing, or by the embedded default."""
    for name, text in given_settings.items():
        environment.setenv(name, text)

    check_channel(load_settings())


def test_the_console_and_a_message_service_contradict_each_other(environment: pytest.MonkeyPatch) -> None:
    """Greetings are sent or printed: who says both is asked."""
    environment.setenv("CHANNEL", "console")
    environment.setenv("MESSAGE_SERVICE_URL", "http://localhost")

    with pytest.raises(ConfigurationError, match="MESSAGE_SERVICE_URL=http://localhost and CHANNEL=console contradict"):
        load_settings()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"MESSAGE_SERVICE_URL": "http://localhost"}, "MESSAGE_SERVICE_URL=http://localhost and SMTP_URL=smtp://ada:"),
        ({"CHANNEL": "console"}, r"SMTP_URL=smtp://ada:\*\*\*@localhost and CHANNEL=console contradict"),
        ({"SMTP_FROM": ""}, r"SMTP_URL=smtp://ada:\*\*\*@localhost without SMTP_FROM: the sender"),
    ],
)
def test_one_channel_with_all_that_it_needs(environment: pytest.MonkeyPatch, others: dict[str, str], said: str) -> None:
    """E-mails go out in place of requests, and need a sender; the error has no password."""
    given_settings = {"SMTP_URL": "smtp://ada:s3cret@localhost", "SMTP_FROM": "hello@example.com"} | others
    for name, text in given_settings.items():
        environment.setenv(name, text)

    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings()

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", SmtpServer("mail.example.com", 587, Tls.STARTTLS)),
        ("smtp://mail.example.com:2525/?starttls=true", SmtpServer("mail.example.com", 2525, Tls.STARTTLS)),
        ("smtp://[::1]:25?starttls=false", SmtpServer("::1", 25, Tls.NONE)),
        (
            "smtps://ada%40example.com:s3%2Fcret%3F@mail.example.com",
            SmtpServer("mail.example.com", 465, Tls.IMPLICIT, "ada@example.com", "s3/cret?"),
        ),
    ],
)
def test_smtp_url(url: str, server: SmtpServer) -> None:
    """Port and encryption follow from the scheme unless they are given; user and password are percent-decoded."""
    assert read_smtp_url(url) == server


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://mail.example.com", "starts with smtp://"),
        ("smtps://mail.example.com?starttls=false", "without a query"),
        ("smtp://mail.example.com?tls=false", "with .starttls=false"),
        ("smtp://ada@mail.example.com", "with user and password"),
        ("smtp://ada:s3/cret@mail.example.com", "/ as %2F"),
    ],
)
def test_invalid_smtp_url(url: str, said: str) -> None:
    """What would be ignored or misread is refused."""
    with pytest.raises(ValueError, match=said):
        read_smtp_url(url)


@pytest.mark.parametrize("text", ["hello", "hello@", "Ltd <>", "a@example.com, b@example.com", "þór@example.com"])
def test_invalid_sender(text: str) -> None:
    """A sender is one address that every mail server takes."""
    with pytest.raises(ValueError, match=r"an address such as hello@example\.com"):
        read_sender(text)


@pytest.mark.parametrize(
    ("given_settings", "repeats"),
    [({}, (True, False)), ({"RETRY_UNKNOWN": "always"}, (True, True)), ({"RETRY_UNKNOWN": "Never"}, (False, False))],
)
def test_what_may_have_arrived_is_repeated_for_a_message_service(
    environment: pytest.MonkeyPatch, given_settings: dict[str, str], repeats: tuple[bool, bool]
) -> None:
    """By default not by e-mail, where no key tells a second copy from another e-mail."""
    for name, text in given_settings.items():
        environment.setenv(name, text)

    http = load_settings()
    smtp = load_settings(smtp_url="smtp://localhost", smtp_from="hello@example.com")

    assert (http.retry.unknown, smtp.retry.unknown) == repeats
    assert (http.worker_concurrency, smtp.worker_concurrency) == (100, 20)


def test_a_file_of_settings_wins_over_the_environment(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever names a file means it; an empty value there means the default."""
    environment.setenv("SEND_AT", "10:00")
    environment.setenv("PORT", "4000")
    environment.setenv("LEAP_DAY", "mar1")
    file = tmp_path / "settings.env"
    file.write_text("SEND_AT='11:00'\nPORT=\n", encoding="utf-8")

    apply_env_file(file)
    loaded = load_settings()

    assert (loaded.send_at, loaded.port, loaded.leap_day) == (time(11), 3000, LeapDay.MAR1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file or directory; a file that can be read is accepted"),
        (b"A=1\n\nB=\xff\n", "line 3: text in UTF-8 is accepted"),
        (b"A=1\nnonsense", "line 2: NAME=value is accepted"),
    ],
)
def test_a_file_of_settings_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    """With its path, and the line if there is one."""
    file = tmp_path / "settings.env"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError) as raised:
        apply_env_file(file)

    assert str(file) in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize("character", list("/?#[%"))
@pytest.mark.parametrize("start", ["postgresql://ada:", "amqp://ada:", "http://ada:"])
def test_a_raw_special_character_in_a_password_is_explained(
    environment: pytest.MonkeyPatch, start: str, character: str
) -> None:
    """Whatever it makes of the URL, also with a digit before it: the error says how to write it, and no secret."""
    name = {"p": "DATABASE_URL", "a": "RABBITMQ_URL", "h": "MESSAGE_SERVICE_URL"}[start[0]]
    for before in ("s3cret", "1"):
        environment.setenv(name, f"{start}{before}{character}s3cret@localhost/x")
        if (name, before, character) == ("MESSAGE_SERVICE_URL", "1", "/"):
            continue  # The port 1 of a host called ada, and a path: that may be meant.
        with pytest.raises(ConfigurationError, match="%23") as raised:
            load_settings()
        assert "s3cret" not in str(raised.value)


def test_a_raw_at_sign_in_a_database_password_is_explained(environment: pytest.MonkeyPatch) -> None:
    """The driver would look for a host that begins with the rest of the password."""
    environment.setenv("DATABASE_URL", "postgresql://ada:1@s3cret@localhost/x")

    with pytest.raises(ConfigurationError, match="@ as %40") as raised:
        load_settings()

    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("MESSAGE_SERVICE_URL", "http://localhost/v1#a", "a URL without # is accepted"),
        ("MESSAGE_SERVICE_URL", "http://localhost/v1#", "a URL without # is accepted"),
        ("DATABASE_URL", "postgresql://localhost/db#a", "a URL without # is accepted"),
        ("RABBITMQ_URL", "amqp://localhost/#a", "a URL without # is accepted"),
        ("RABBITMQ_URL", "amqp://localhost?heartbeats=3", "'heartbeats' is not known: cacertfile"),
        ("RABBITMQ_URL", "amqp://localhost?connection_timeout=3", "'connection_timeout' is not known"),
        ("RABBITMQ_URL", "amqp://localhost?heartbeat=soon", "'heartbeat' is a whole number"),
        (
            "RABBITMQ_URL",
            "amqp://localhost?cacertfile=/ca.pem",
            "'cacertfile' is for TLS: a URL that starts with amqps",
        ),
        ("RABBITMQ_URL", "amqps://localhost?cacertfile=/ca.pem", "'cacertfile' is a PEM file .*: No such file"),
        (
            "RABBITMQ_URL",
            "amqps://localhost?certfile=/c.pem",
            "'certfile' and 'keyfile' are PEM files .*: No such file",
        ),
        ("RABBITMQ_URL", "amqps://localhost?certfile=/dev/null", "they do not fit together"),
        ("RABBITMQ_URL", "amqps://localhost?keyfile=/c.pem", "'keyfile' is accepted together with 'certfile'"),
        ("RABBITMQ_URL", "amqps://localhost?verify=maybe", "'verify' is verify_peer or verify_none"),
        ("RABBITMQ_URL", "amqp://one,two/#", "a URL without # is accepted"),
        ("RABBITMQ_URL", "amqp://one:5672,two:amqp/vhost", "a URL with a port from 1 to 65535 is accepted"),
        ("RABBITMQ_URL", "amqp://one,/vhost", "a URL with a host is accepted"),
        ("RABBITMQ_URL", "amqp://one/vhost,amqp://two/vhost", "one URL with several hosts is accepted"),
        ("RABBITMQ_URL", "amqp://ada:pw@one,ada:pw@two/vhost", "one URL with several hosts is accepted"),
    ],
)
def test_what_a_url_says_in_vain_is_refused(environment: pytest.MonkeyPatch, name: str, text: str, said: str) -> None:
    """Before anything starts: a parameter that is ignored may be the one that makes a connection safe."""
    environment.setenv(name, text)

    with pytest.raises(ConfigurationError, match=said):
        load_settings()


def test_no_secret_in_repr(environment: pytest.MonkeyPatch) -> None:
    """Settings that are printed show no password and no key."""
    environment.setenv("DATABASE_URL", "postgresql://ada:s3cret@example.com/db")
    environment.setenv("RABBITMQ_URL", "amqp://ada:s3cret@example.com")
    environment.setenv("MESSAGE_SERVICE_API_KEY", "s3cret")

    assert "s3cret" not in repr(load_settings())


def test_overrides(environment: pytest.MonkeyPatch) -> None:
    """A flag wins over the environment, one that was not given does not, and a bad one is named like the variable."""
    environment.setenv("ROLE", "api")
    environment.setenv("PORT", "4000")

    loaded = load_settings(role="worker", port=None)

    assert (loaded.role, loaded.port) == (frozenset({Role.WORKER}), 4000)
    with pytest.raises(ConfigurationError, match=r"^ROLE='cook': "):
        load_settings(role="cook")


def test_derived(environment: pytest.MonkeyPatch) -> None:
    """The rules of birthdays and of retries are made of the settings."""
    environment.setenv("SEND_AT", "08:30")
    environment.setenv("LEAP_DAY", "mar1")
    environment.setenv("MAX_ATTEMPTS", "7")

    loaded = load_settings()

    assert loaded.rules == Rules(time(8, 30), LeapDay.MAR1)
    assert loaded.retry == RetryPolicy(7, timedelta(seconds=2), timedelta(minutes=10))


def test_a_direct_url_means_a_pooler_by_transaction(environment: pytest.MonkeyPatch) -> None:
    """Unless it is said to keep sessions. The settings past it have no pooler."""
    environment.setenv("DATABASE_URL", "postgresql://pooler.example.com/db")
    environment.setenv("DATABASE_DIRECT_URL", "postgresql://server.example.com/db")

    loaded = load_settings()

    assert loaded.database_pooler == "transaction"
    assert load_settings(database_pooler="Session").database_pooler == "session"
    past = loaded.direct
    assert (past.database_url, past.database_pooler) == (loaded.database_direct_url, "session")
    assert past.direct is past


def test_effective_settings(environment: pytest.MonkeyPatch) -> None:
    """Every setting is shown the way it is written, with whether it was set, and without a secret."""
    environment.setenv("DATABASE_URL", "postgresql://ada:s3cret@example.com/db?password=s3cret")
    environment.setenv("RABBITMQ_URL", "amqps://ada:s3cret@example.com/v1?name=s3cret")
    environment.setenv("MESSAGE_SERVICE_API_KEY", "s3cret")
    environment.setenv("MESSAGE_SERVICE_PATH", "/services/T0000/a-long-token-that-is-s3cret?sig=s3cret")
    environment.setenv("MESSAGE_SERVICE_SIGNING_SECRET", WHSEC)
    environment.setenv("EVENTS_URL", "https://ada:s3cret@example.com/events?token=s3cret")
    environment.setenv("EVENTS_SECRET", WHSEC)
    environment.setenv("API_KEYS", f"ops:{DIGEST}:admin,ci:{DIGEST}:read")
    environment.setenv("ROLE", "worker,api")
    environment.setenv("SEND_AT", "08:30:15")
    environment.setenv("PORT", "3000")

    shown = effective_settings(load_settings())

    assert [each.variable for each in shown] == [name.upper() for name in Settings.model_fields]
    assert {each.variable: each.value for each in shown if each.is_set} == {
        "DATABASE_URL": "postgresql://ada:***@example.com/db",
        "RABBITMQ_URL": "amqps://ada:***@example.com/v1",
        "MESSAGE_SERVICE_PATH": "/services/T0000/***",
        "MESSAGE_SERVICE_API_KEY": "***",
        "MESSAGE_SERVICE_SIGNING_SECRET": "***",
        "EVENTS_URL": "https://ada:***@example.com/events",
        "EVENTS_SECRET": "***",
        "API_KEYS": "ops:***:admin,ci:***:read",
        "ROLE": "api,worker",
        "SEND_AT": "08:30:15",
        "PORT": "3000",
    }
    unset = {each.variable: each.value for each in shown if not each.is_set}
    assert (unset["MESSAGE_SERVICE_URL"], unset["CATCH_UP_WINDOW"], unset["LEAP_DAY"]) == ("-", "48h", "feb28")
    assert unset["CRON_PLAN"] == "*/5 * * * *"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.168.1.1", False),
        ("[::]", False),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),  # noqa: S104 - To be told apart is the point.
        ("::", False),
        ("192.168.1.1", False),
        ("localhost.example.com", False),
    ],
)
def test_is_loopback(host: str, *, loopback: bool) -> None:
    """Only this machine's own addresses count as loopback."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://ada:s3cret@example.com:5432/db?sslmode=require", "postgresql://ada:***@example.com:5432/db"),
        ("amqp://ada:s3c@ret@example.com/%2f", "amqp://ada:***@example.com/%2f"),
        ("https://ada@example.com/v1", "https://ada@example.com/v1"),
        ("https://example.com/v1?key=s3cret", "https://example.com/v1"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("postgresql://one:1,two:2/db", "postgresql://one:1,two:2/db"),
        ("postgresql://ada:1/s3cret@example.com/db", "postgresql://***"),
        ("postgresql://ada:s3@cret/x@example.com/db", "postgresql://***"),
    ],
)
def test_mask_url(url: str, masked: str) -> None:
    """A URL for a log line has neither password nor query."""
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("value", "duration"),
    [
        ("0", timedelta()),
        ("10", timedelta(seconds=10)),
        ("1.5", timedelta(seconds=1.5)),
        (30, timedelta(seconds=30)),
        (0.25, timedelta(milliseconds=250)),
        ("500ms", timedelta(milliseconds=500)),
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        ("48h", timedelta(hours=48)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
        (" 10M ", timedelta(minutes=10)),
        (timedelta(minutes=3), timedelta(minutes=3)),
    ],
)
def test_parse_duration(value: object, duration: timedelta) -> None:
    """A plain number is seconds; otherwise the unit says what it is."""
    assert parse_duration(value) == duration


@pytest.mark.parametrize(
    "value", ["", "s", "-5", "+5", "1w", "1h30m", "1e3", "inf", "nan", ".5", "5.", "0x10", None, True]
)
def test_parse_duration_refused(value: object) -> None:
    """Whatever else is no duration."""
    with pytest.raises(ValueError, match="a duration is accepted"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (timedelta(), "0ms"),
        (timedelta(milliseconds=500), "500ms"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=2), "2s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=10), "10m"),
        (timedelta(days=7), "168h"),
    ],
)
def test_show_duration(duration: timedelta, shown: str) -> None:
    """A duration is shown in the largest unit, up to hours, that needs no fraction."""
    assert show_duration(duration) == shown


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 3650 * 86_400_000).map(lambda milliseconds: timedelta(milliseconds=milliseconds)))
def test_duration_round_trip(duration: timedelta) -> None:
    """What is shown can be read again and means the same."""
    assert parse_duration(show_duration(duration)) == duration


def test_events_need_a_secret(environment: pytest.MonkeyPatch) -> None:
    """Whoever takes events must be able to tell who sent them."""
    environment.setenv("EVENTS_URL", "https://ada:s3cret@example.com/events")
    with pytest.raises(
        ConfigurationError, match=r"EVENTS_URL=https://ada:\*\*\*@example.com/events without EVENTS_SECRET"
    ):
        load_settings()
