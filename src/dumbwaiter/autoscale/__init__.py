"""The local autoscaler: workers started and stopped to follow the work, down to none."""
