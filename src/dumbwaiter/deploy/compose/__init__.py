"""A project for one machine with containers: a compose file with the broker in it, and what it needs.

``files(project)`` is pure.
"""

from dumbwaiter.deploy.compose.files import files
from dumbwaiter.deploy.compose.project import BROKERS, ComposeProject, compose_project_of

__all__ = ["BROKERS", "ComposeProject", "compose_project_of", "files"]
