"""The queue in RabbitMQ, over aiormq. ``broker`` puts together what the other modules are, each one thing of AMQP."""

from birthday.broker.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
