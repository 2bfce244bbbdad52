"""The capacity simulator: what some settings would cost, and how late answers would be.

A discrete-event simulation of one pool: a queue, the workers that pull from it, and what starts and stops them. The
number of workers is decided by policies.scaling, what is expected of an input by policies.service_times, what is pulled
and batched by policies.batching: the functions of the running system, on what that system would know, when it would
know it. Seeded, open loop; an answer's time runs from when its request was meant to come.
"""
