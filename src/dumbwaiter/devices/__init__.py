"""Devices: who may use how much of one, and when."""
