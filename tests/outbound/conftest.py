"""Lets the tests of this folder import their neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import socket_watching  # noqa: F401 - from here on no test of this process connects to another machine
