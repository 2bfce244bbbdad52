"""A project as a Helm chart: the objects of deploy.kubernetes, with values for what differs from cluster to cluster."""

from dumbwaiter.deploy.helm.chart import files

__all__ = ["files"]
