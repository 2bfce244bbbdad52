"""``python -m dumbwaiter``: the command line."""

import sys

from dumbwaiter.cli import main

if __name__ == "__main__":
    sys.exit(main())
