"""RabbitMQ 3.10 and later: quorum queues, spoken to over AMQP 0-9-1."""

from dumbwaiter.brokers.rabbitmq.broker import RabbitmqBroker

__all__ = ["RabbitmqBroker"]
