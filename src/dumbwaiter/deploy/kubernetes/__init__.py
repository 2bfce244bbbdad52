"""A project as objects of Kubernetes: settings and what was measured in, plain dicts out, a file for each.

``rendered(project)`` is pure.
"""

from dumbwaiter.deploy.kubernetes.project import Project, project_of
from dumbwaiter.deploy.kubernetes.rendering import rendered

__all__ = ["Project", "project_of", "rendered"]
