"""The courier: delivers webhooks and replies to URLs, from a queue."""
