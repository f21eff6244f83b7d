"""What we use of libraries besides their documented interface, and the releases that it was last read for."""

import tomllib
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"

READ_FOR = {
    "aiormq": (
        "7.3",
        """
        broker/rabbitmq/channel.py: TransportFactory.create returns the reader and writer that the connection uses;
        Channel.closing and .number. broker/rabbitmq/paths.py: Channel.write_queue takes ChannelFrame(frames,
        should_close). broker/rabbitmq/consumer.py: on_consumer_cancel_callbacks. broker/rabbitmq/frames.py: each frame
        of the server counts as a sign of life. Run tests/unit/test_frames.py, tests/integration/test_rabbitmq.py and
        tests/integration/test_broker_contract.py.
        """,
    ),
    "aiosmtplib": (
        "5.2",
        """
        channels/smtp/session.py: execute_command(b"DATA") returns the answer as it is; SMTP.protocol has write,
        read_response and is_connected, and SMTP.transport is the current one, also after STARTTLS. Run
        tests/integration/test_channel_smtp.py.
        """,
    ),
    "asyncpg": (
        "0.33",
        """
        store/replacing.py: the arguments of Pool.__init__ that create_pool fills in; all statements go through the
        four methods of MeasuredConnection, and the pool's own methods through Pool.acquire; the second argument of
        Connection.__init__ is the transport; ``setup`` is called for each loan and ``reset`` at its end, and may
        terminate the connection there; Connection._get_statement takes ``named``, and what has no name is sent again
        with its arguments if there is no cache. store/hosts.py: connect prefers ``host`` and ``port`` to those of the
        DSN. Run tests/integration/test_telemetry.py, tests/integration/test_switchover.py,
        tests/integration/test_poolers.py and tests/integration/test_database_hosts.py.
        """,
    ),
}


@pytest.mark.parametrize("library", READ_FOR)
def test_no_release_is_allowed_that_nobody_has_read(library: str) -> None:
    """The upper bound is the one that our use of private parts was checked for."""
    bound, look_at = READ_FOR[library]
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]

    [given] = [each for each in dependencies if each.startswith(f"{library}>")]

    assert given.rpartition(",")[2] == f"<{bound}", f"{given}: before {library} is raised, look at {look_at}"
