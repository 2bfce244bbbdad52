"""A project for a machine without containers: units of systemd, and the settings that they read.

``files(project)`` is pure.
"""

from dumbwaiter.deploy.systemd.files import files
from dumbwaiter.deploy.systemd.project import SystemdProject, systemd_project_of

__all__ = ["SystemdProject", "files", "systemd_project_of"]
