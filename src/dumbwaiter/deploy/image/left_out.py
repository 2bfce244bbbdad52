"""Which folders of a project are rendered, and so no part of its image."""

from __future__ import annotations

from pathlib import Path

from dumbwaiter.deploy.folders import RENDERED
from dumbwaiter.deploy.writing import has_rendering


def rendered_in(project: Path) -> list[str]:
    """Those of RENDERED that are such folders or are not there yet. A package of that name is part of the project."""
    return [name for name in RENDERED if not (project / name).exists() or has_rendering(project / name)]
