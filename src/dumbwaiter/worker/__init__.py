"""The worker: a consumer (asyncio, talks to the broker) and a runner (a child process, has the model).

Nothing is imported here: a runner starts with this package, and needs neither asyncio nor what fetches inputs.
"""
