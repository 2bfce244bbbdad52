"""Here, so that the tests of all brokers find servers.py beside it."""
