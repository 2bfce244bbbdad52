"""What a model's queue and workers ask for: the looks that scaling decides by."""

from dumbwaiter.demand.pool import PoolView, PoolWatcher, rules_of

__all__ = ["PoolView", "PoolWatcher", "rules_of"]
