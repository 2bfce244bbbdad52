"""What the Python worker of Azure Functions does: find the functions and run them, many at a time, in one loop."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from types import SimpleNamespace
from typing import Any

import azure.functions as func


async def answered(function: Any, request: dict[str, Any]) -> dict[str, Any]:
    asked = func.HttpRequest(
        method=request["method"],
        url=request["url"],
        headers=request.get("headers", {}),
        params={},
        route_params={"route": request["url"].split("/", 3)[3]},
        body=base64.b64decode(request.get("body", "")),
    )
    context = SimpleNamespace(function_directory=".", function_name=function.get_function_name(), invocation_id="1")
    try:
        answer = await function.get_user_function()(asked, context)
    except Exception as error:  # the host answers 500 then, without a body
        sys.stderr.write(f"the function failed: {error!r}\n")
        return {"status": 500, "headers": {}, "body": ""}
    body = base64.b64encode(answer.get_body()).decode()
    return {"status": answer.status_code, "headers": dict(answer.headers), "body": body}


async def main() -> None:
    from dumbwaiter.cloud.azure_functions import app

    (function,) = app.get_functions()
    binding = function.get_trigger().get_dict_repr()
    assert binding["authLevel"].value.lower() == "anonymous"
    assert binding["route"] == "/{*route}"
    while line := await asyncio.to_thread(sys.stdin.readline):
        requests = json.loads(line)
        many = requests if isinstance(requests, list) else [requests]
        answers = await asyncio.gather(*(answered(function, request) for request in many))
        sys.stdout.write(json.dumps(answers if isinstance(requests, list) else answers[0]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
