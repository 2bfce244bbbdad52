"""A project as an image: a Dockerfile and what it needs, rendered from the settings and the requirements.

``files(project)`` is pure; requirements.py and left_out.py look into the project, the first into this environment too.
"""

from dumbwaiter.deploy.image.files import files
from dumbwaiter.deploy.image.project import ImageProject, image_project_of
from dumbwaiter.deploy.image.requirements import Requirements, requirements_of

__all__ = ["ImageProject", "Requirements", "files", "image_project_of", "requirements_of"]
