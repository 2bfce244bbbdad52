"""Events as API Gateway, load balancers and function URLs hand them to a Lambda function."""

from __future__ import annotations

import base64
from typing import Any

from cloud_running import Shop

PREDICT = "/v1/models/clerk/predictions"
JSON = "application/json"


def http_api(
    shop: Shop, method: str, path: str, body: bytes | str | None = None, *, stage: str = "$default", **headers: str
) -> dict[str, Any]:
    """Payload format 2.0, of an HTTP API.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
    """
    path, _, query = path.partition("?")
    path = path if stage == "$default" else f"/{stage}{path}"
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            "authorization": f"Bearer {shop.key}",
            "host": "id.execute-api.eu-central-1.amazonaws.com",
            "x-forwarded-proto": "https",
            "x-forwarded-port": "443",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "id",
            "domainName": "id.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "id",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "x"},
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": stage,
            "timeEpoch": 1583348638390,
        },
        "isBase64Encoded": isinstance(body, bytes),
    }
    if body is not None:
        event["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
        event["headers"]["content-length"] = str(len(body if isinstance(body, bytes) else body.encode()))
    return event


def rest_api(shop: Shop, method: str, path: str, body: str, **headers: str) -> dict[str, Any]:
    """Payload format 1.0, of a REST API.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
    """
    sent = {"Authorization": f"Bearer {shop.key}", "Host": "id.execute-api.eu-central-1.amazonaws.com"}
    sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path.strip("/")},
        "stageVariables": None,
        "requestContext": {
            "domainName": "id.execute-api.eu-central-1.amazonaws.com",
            "httpMethod": method,
            "identity": {"sourceIp": "192.0.2.1"},
            "path": f"/prod{path}",
            "requestId": "id=",
            "resourcePath": "/{proxy+}",
            "stage": "prod",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def load_balancer(shop: Shop, method: str, path: str, body: str, **headers: str) -> dict[str, Any]:
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html"""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-central-1:1:targetgroup/a/b"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {},
        "headers": {
            "authorization": f"Bearer {shop.key}",
            "host": "kitchen-1.eu-central-1.elb.amazonaws.com",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def function_url(shop: Shop, method: str, path: str, body: bytes | str | None = None, **headers: str) -> dict[str, Any]:
    """https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads"""
    event = http_api(shop, method, path, body, **headers)
    event["requestContext"]["domainName"] = "id.lambda-url.eu-central-1.on.aws"
    return event
