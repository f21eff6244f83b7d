"""The queue between dispatcher and worker. It carries message ids only; PostgreSQL is the truth."""

from birthday.broker.protocol import Broker, Consumer, DeadLetter, DeadLetters, Delivery, QueueStats

__all__ = ["Broker", "Consumer", "DeadLetter", "DeadLetters", "Delivery", "QueueStats"]
