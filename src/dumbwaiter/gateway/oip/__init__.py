"""The Open Inference Protocol, version 2, that KServe and Triton speak: for their clients, over the same queues."""

from dumbwaiter.gateway.oip.endpoints import Oip
from dumbwaiter.gateway.oip.problems import speaking_the_protocol

__all__ = ["Oip", "speaking_the_protocol"]
