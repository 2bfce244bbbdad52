"""The gateway behind clouds' doors: AWS Lambda, Azure Functions, Cloud Run."""
