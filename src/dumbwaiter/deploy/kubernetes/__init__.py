"""A project as objects of Kubernetes: settings and what was measured in, plain dicts out, a file for each.

``rendered(project)`` is pure; writing.py alone touches files.
"""

from dumbwaiter.deploy.kubernetes.project import Measured, Model, Project, project_of
from dumbwaiter.deploy.kubernetes.rendering import rendered

__all__ = ["Measured", "Model", "Project", "project_of", "rendered"]
