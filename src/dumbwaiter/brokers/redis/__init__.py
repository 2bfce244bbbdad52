"""Redis and Valkey: a stream a lane, and Lua for what streams lack. See docs/brokers/redis.md for the keys."""

from dumbwaiter.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
