"""What Lambda's runtime does: import the handler once, then one event after the other. In between nothing runs."""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


class Context:
    function_name = "gateway"
    aws_request_id = "8f507cfc-example"

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int(1000 * (self._until - time.monotonic())))


def main() -> None:
    handler: Any = importlib.import_module("dumbwaiter.cloud.aws_lambda").handler
    for line in sys.stdin:
        event = json.loads(line)
        seconds = event.pop("timeout", 60.0)
        sys.stdout.write(json.dumps(handler(event, Context(seconds))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
