"""The files that an image is built from, by name. Pure."""

from __future__ import annotations

from dumbwaiter.deploy import requirements
from dumbwaiter.deploy.image import readme
from dumbwaiter.deploy.image.dockerfile import REQUIREMENTS, SETTINGS, WHEELS, dockerfile, ignored
from dumbwaiter.deploy.image.project import IMAGE, ImageProject
from dumbwaiter.deploy.moving import settings_tree
from dumbwaiter.deploy.toml import document

_WHEELS = """# Packages that no index has

`pip` looks here first when the image is built. Put wheels here:

    pip wheel --no-deps --wheel-dir . FOLDER-OR-URL-OF-A-PACKAGE
"""


def files(project: ImageProject) -> dict[str, str]:
    """Name and text of each. Raises ConfigError for what cannot be in an image."""
    tree = settings_tree(project.settings, IMAGE)
    return {
        "Dockerfile": dockerfile(project),
        "Dockerfile.dockerignore": ignored(project),
        REQUIREMENTS: requirements.document(project.requirements),
        SETTINGS: document(tree),
        f"{WHEELS}/README.md": _WHEELS,
        "README.md": readme.text(project),
    }
