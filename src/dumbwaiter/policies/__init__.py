"""Decisions as pure functions: no clock, no asyncio, no I/O. Time comes in as an argument."""
