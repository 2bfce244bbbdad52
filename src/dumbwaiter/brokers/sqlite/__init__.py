"""The embedded broker: many processes on one machine share one SQLite file."""

from dumbwaiter.brokers.sqlite.broker import SqliteBroker

__all__ = ["SqliteBroker"]
