"""What every problem has."""

from __future__ import annotations


def problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"urn:dumbwaiter:problem:{code}"
    assert document["detail"]
    return document
