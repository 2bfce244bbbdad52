"""What the gateway says of itself: the OpenAPI and AsyncAPI documents, and the page to try models from a browser."""

from dumbwaiter.gateway.documents.pages import Documents, wants_page

__all__ = ["Documents", "wants_page"]
