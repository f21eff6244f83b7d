"""Files of settings, read as systemd and Compose both read them; and names that are nearly those of settings."""

import pytest

from birthday.config import Settings
from birthday.config.env_file import parse_env_file, unknown_variables
from birthday.errors import ConfigurationError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=value", "value"),
        ("NAME=", ""),
        ("NAME=''", ""),
        ("  NAME = two words  ", "two words"),
        ("NAME=value\r", "value"),
        ("NAME=a=b&c", "a=b&c"),
        ("NAME=a#b", "a#b"),
        ("NAME=it's", "it's"),
        ("NAME='a \"b\" $c #d \\e'", 'a "b" $c #d \\e'),
        ("NAME=\"a 'b' #c\"", "a 'b' #c"),
        (r'NAME="a\"b\\c\$d"', r'a"b\c$d'),
        ("NAME=one\nNAME=two", "two"),
        ("# NAME=no\n;NAME=no\n\n   # NAME=no\nNAME=yes", "yes"),
        ("\ufeffNAME=value", "value"),
    ],
)
def test_what_both_read_alike_is_accepted(line: str, value: str) -> None:
    """Plain values, and quoted ones as systemd.exec(5) and Compose's documentation of env files have them."""
    assert parse_env_file(line, "file") == {"NAME": value}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("s3cret", "NAME=value is accepted"),
        ("export NAME=s3cret", "NAME=value is accepted"),
        ("9NAME=s3cret", "NAME=value is accepted"),
        ("NAME: s3cret", "NAME=value is accepted"),
        ("NAME='s3cret", "NAME: a value in single quotes"),
        ("NAME='s3cret' # comment", "NAME: a value in single quotes"),
        ("NAME='s3cret\\'", "NAME: a value in single quotes"),
        ('NAME="s3cret', "NAME: a value in double quotes"),
        ('NAME="s3cret" more', "NAME: a value in double quotes"),
        (r'NAME="s3cret\n"', "NAME: a value in double quotes"),
        ("NAME=s3cret # comment", "NAME: ' #' is a comment to Compose"),
        ("NAME= #s3cret", "NAME: ' #' is a comment to Compose"),
        ("NAME=s3cret\\", "NAME: systemd and Compose read a backslash differently"),
        ("NAME=s3cret$x", "NAME: Compose replaces what follows a $"),
        ('NAME="s3cret${x}"', "NAME: Compose replaces what follows a $"),
        ("NAME=s3cret\0", "without a NUL character"),
    ],
)
def test_what_they_read_differently_is_refused_with_its_line_and_without_its_value(line: str, said: str) -> None:
    """A command must not have other settings than the service; and a value may be a password."""
    with pytest.raises(ConfigurationError) as raised:
        parse_env_file(f"A=1\n\n{line}\n", "settings.env")
    assert str(raised.value).startswith("settings.env, line 3: ")
    assert said in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("MESAGE_SERVICE_URL", "MESSAGE_SERVICE_URL"),
        ("MESSAGE_SERVICE_URI", "MESSAGE_SERVICE_URL"),
        ("mesage_service_url", "MESSAGE_SERVICE_URL"),
        ("API_KEY", "API_KEYS"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("BIRTHDAY_DATABASE_URL", "DATABASE_URL"),
        ("BIRTHDAY_DATADIR", "BIRTHDAY_DATA_DIR"),
    ],
)
def test_a_name_that_is_nearly_that_of_a_setting_is_found(name: str, setting: str) -> None:
    """With the setting that may be meant, whatever the case of its letters."""
    assert unknown_variables([name], Settings.model_fields) == {name: setting}


def test_variables_of_others_are_left_alone() -> None:
    """Those of settings, of shells, libpq, OpenTelemetry, TLS, proxies, and of service links on Kubernetes."""
    names = [
        *(name.upper() for name in Settings.model_fields),
        *("no_proxy", "http_proxy", "PATH", "HOSTNAME", "TERM", "SHELL", "PGPORT", "PGHOST", "PWD", "NO_COLOR", "USER"),
        *("OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER", "SSL_CERT_DIR", "FTP_PROXY", "POSTGRES_PASSWORD"),
        *("RABBITMQ_PASSWORD", "BIRTHDAY_SCHEDULER_API_SERVICE_HOST", "BIRTHDAY_SCHEDULER_API_PORT", "LOG_DIR"),
        *(
            "COVERAGE_PROCESS_CONFIG",
            "PYTHONUNBUFFERED",
            "KUBERNETES_PORT",
            "REDIS_URL",
            "AMQP_URL",
            "NIX_SSL_CERT_FILE",
            "NODE_APP_INSTANCE",
        ),
    ]
    assert unknown_variables(names, Settings.model_fields) == {}
