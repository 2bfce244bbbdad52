"""The local autoscaler: workers started and stopped to follow the work, down to none."""

from dumbwaiter.autoscale.fleet import Fleet, Member
from dumbwaiter.autoscale.following import Autoscaler, Pool, Scaled

__all__ = ["Autoscaler", "Fleet", "Member", "Pool", "Scaled"]
