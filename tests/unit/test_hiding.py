"""What a client without a key does not see in the reason of a failure."""

import re

from pydantic import SecretStr

from birthday.config import Settings
from birthday.http.hiding import hiding


def test_every_node_and_the_virtual_host_are_hidden() -> None:
    """A URL with several hosts is one URL, whose commas do not end it."""
    hide = hiding(Settings(rabbitmq_url=SecretStr("amqp://ada:s3cret@one:5672,two,three:5673/greetings")))

    shown = hide("RabbitMQ at amqp://ada:***@one:5672,two,three:5673/greetings: two is away")

    assert shown is not None
    assert not {"ada", "one", "two", "three", "greetings"} & set(re.findall(r"\w+", shown))
    assert shown.endswith("is away")
