"""The queue in RabbitMQ, over aiormq. ``broker`` combines the other modules; each covers one part of AMQP.

What needs the server raises ``UnavailableError`` if it cannot be reached, holds another topology, or refuses.
"""

from birthday.broker.rabbitmq.broker import RabbitMQBroker
from birthday.broker.rabbitmq.errors import is_refusal

__all__ = ["RabbitMQBroker", "is_refusal"]
