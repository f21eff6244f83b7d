"""The queue in RabbitMQ, over aiormq. ``broker`` combines the other modules; each covers one part of AMQP."""

from birthday.broker.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
