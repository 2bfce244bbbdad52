"""The gateway behind clouds' doors: AWS Lambda, Azure Functions, Cloud Run.

Each module is what its cloud is pointed at, and reads the settings when it is imported. They need no extra but that of
their cloud's adapter.
"""
