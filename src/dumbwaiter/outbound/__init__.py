"""Reaching URLs that callers name, without being led inside: the address guard and the HTTP client behind it."""
