"""A project as an image: a Dockerfile and what it needs, rendered from the settings and the requirements.

``files(project)`` is pure; left_out.py looks into the project.
"""

from dumbwaiter.deploy.image.files import files
from dumbwaiter.deploy.image.project import ImageProject, image_project_of

__all__ = ["ImageProject", "files", "image_project_of"]
