"""Codes of errors that librdkafka makes itself. The client has them under names with an underscore, as constants."""

from __future__ import annotations

from confluent_kafka import KafkaError

# ruff: noqa: SLF001 - there is no other name for them
END_OF_PARTITION = KafkaError._PARTITION_EOF
QUEUE_FULL = KafkaError._QUEUE_FULL
SUSPECT = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE)
"""A connection broke, or none could be made."""
REFUSED = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
"""The brokers are there, and do not take us."""
USELESS = (KafkaError._MSG_TIMED_OUT, KafkaError._FATAL)
"""A producer that says so may never write again."""
