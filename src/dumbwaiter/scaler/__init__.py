"""What KEDA asks: the external-push service (gRPC) and the metrics-api page, over the same looks."""
