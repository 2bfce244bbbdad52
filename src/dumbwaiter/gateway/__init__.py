"""The REST door: HTTP in, messages out, answers back through an inbox. It never talks to a worker."""

from dumbwaiter.gateway.app import create_app
from dumbwaiter.gateway.server import run_gateway

__all__ = ["create_app", "run_gateway"]
