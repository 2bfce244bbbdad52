"""What Kubernetes' autoscaling asks: how many workers a model needs. By gRPC for KEDA's external-push, and by HTTP."""

from dumbwaiter.scaler.run import run_scaler

__all__ = ["run_scaler"]
