"""A process of its own for the tests: ``download_process.py URI PROJECT`` fetches weights and says where they are."""

from __future__ import annotations

import sys
from pathlib import Path

from dumbwaiter.errors import ModelLoadError
from dumbwaiter.models.weights import local_weights

if __name__ == "__main__":
    try:
        sys.stdout.write(f"{local_weights(sys.argv[1], project=Path(sys.argv[2]))}\n")
    except ModelLoadError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(3)
