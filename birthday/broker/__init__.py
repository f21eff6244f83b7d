"""The queue between dispatcher and worker. It carries message ids only; PostgreSQL is the truth."""

from birthday.broker.protocol import Broker, Consumer, Delivery, QueueStats

__all__ = ["Broker", "Consumer", "Delivery", "QueueStats"]
