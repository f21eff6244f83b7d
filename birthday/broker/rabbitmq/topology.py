"""Exchanges and queues: their names, their properties, and how they are declared."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

import aiormq

from birthday.broker.rabbitmq.channel import AmqpChannel
from birthday.errors import UnavailableError

EXCHANGE: Final = "birthday_exchange"
QUEUE: Final = "birthday_messages"
"""The queue that workers consume, and its routing key."""
DEAD_LETTER_EXCHANGE: Final = "birthday_dlx"
DEAD_LETTER_QUEUE: Final = "birthday_messages_dlq"
"""The dead-letter queue, and its routing key."""
RETRY_QUEUES: Final = {
    timedelta(seconds=1): "birthday_messages_retry_1s",
    timedelta(seconds=5): "birthday_messages_retry_5s",
    timedelta(seconds=30): "birthday_messages_retry_30s",
    timedelta(minutes=2): "birthday_messages_retry_2m",
    timedelta(minutes=10): "birthday_messages_retry_10m",
}
"""A queue for each delay. If delays shared a queue, a message would wait for the one in front of it."""

# By default, RabbitMQ 4 dead-letters after 20 deliveries. Each consumer that ends gives back what it holds, which
# counts as a delivery, and a long outage has many of those. PostgreSQL bounds the attempts; this limit only ends an
# endless loop.
_DELIVERY_LIMIT: Final = 10_000
# If an operator browses a dead letter and puts it back, that counts as a delivery. Browsing must never drop a dead
# letter.
_NO_DELIVERY_LIMIT: Final = 2_000_000_000
# Dead-lettering is "at most once", the default. With the other strategy, not every queue comes back after a crash of
# RabbitMQ 3.10. If a message is lost on the way to another queue, the janitor finds it in PostgreSQL.
_QUEUE_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    DEAD_LETTER_QUEUE: {"x-queue-type": "quorum", "x-delivery-limit": _NO_DELIVERY_LIMIT},
    QUEUE: {
        "x-queue-type": "quorum",
        "x-delivery-limit": _DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
        "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    },
    **{
        name: {
            "x-queue-type": "quorum",
            "x-message-ttl": round(delay.total_seconds() * 1000),
            "x-dead-letter-exchange": EXCHANGE,
            "x-dead-letter-routing-key": QUEUE,
        }
        for delay, name in RETRY_QUEUES.items()
    },
}


async def look(channel: AmqpChannel) -> None:
    """Make sure that all exchanges and queues are there, without declaring anything.

    Queues are not asked for counts, which takes longer while the leader of one is silent. Bindings cannot be looked at,
    but ``declare`` makes them before the last queue.

    Raises:
        MissingError: if something is missing. The server has closed the channel then.
    """
    for queue in _QUEUE_ARGUMENTS:
        await channel.ask(channel.raw.queue_declare(queue, passive=True, nowait=True))
    for exchange in (EXCHANGE, DEAD_LETTER_EXCHANGE):
        await channel.ask(channel.raw.exchange_declare(exchange, passive=True))


async def declare(channel: AmqpChannel, *, bind: bool) -> None:
    """Declare all exchanges and queues. Those that exist stay as they are, and their properties are compared.

    ``bind`` also binds them. While a node of the cluster is silent, that hangs for a minute.

    Raises:
        UnavailableError: also if one of them exists with other properties; the text says what to do.
    """
    for exchange in (EXCHANGE, DEAD_LETTER_EXCHANGE):
        operation = channel.raw.exchange_declare(exchange, exchange_type="direct", durable=True)
        await _declare(channel, f"exchange {exchange}", operation)
    for queue, exchange in ((QUEUE, EXCHANGE), (DEAD_LETTER_QUEUE, DEAD_LETTER_EXCHANGE)):
        await _declare_queue(channel, queue)
        if bind:
            await channel.ask(channel.raw.queue_bind(queue, exchange, queue))
    for queue in RETRY_QUEUES.values():
        await _declare_queue(channel, queue)


async def _declare_queue(channel: AmqpChannel, queue: str) -> None:
    declaring = channel.raw.queue_declare(queue, durable=True, arguments=_QUEUE_ARGUMENTS[queue])
    await _declare(channel, f"queue {queue}", declaring)


async def _declare(channel: AmqpChannel, what: str, operation: Coroutine[Any, Any, object]) -> None:
    try:
        await channel.ask(operation)
    except UnavailableError as error:
        if not isinstance(error.__cause__, aiormq.ChannelPreconditionFailed):
            raise
        raise UnavailableError(
            "queue",
            f"{what} in {channel.where} exists with other properties than ours ({error.__cause__}); empty and delete "
            "it, and it is declared again as it should be, or give RABBITMQ_URL a virtual host of its own",
        ) from error.__cause__


def route(delay: timedelta) -> tuple[str, str]:
    """Return exchange and routing key for a message to be consumed after ``delay``, or a little earlier."""
    if delay <= timedelta():
        return EXCHANGE, QUEUE
    rung = max((rung for rung in RETRY_QUEUES if rung <= delay), default=min(RETRY_QUEUES))
    return "", RETRY_QUEUES[rung]
