"""Several models on one device: who may run now, with how much memory, and who has to leave for whom. Pure.

A batch runs iff all that processes hold on the device (weights, contexts, activation that was granted, what dead ones
have not given back) and what it needs fit into the capacity less a reserve (Salus, MLSys'20, with several lanes); with
a smaller batch, if that fits. Turns follow start-time fair queueing (Goyal et al., SIGCOMM'96) over GB-seconds by
weight. Nobody behind may delay the first in line that does not fit (EASY backfill, Lifka 1995); what fits beside it
without that is free of charge. The first in line, and only it, has idle ones parked.

There is no deadlock: memory for weights and batch is granted in one step, nobody waits while it holds a grant, the line
is one total order, and its head lacks only what ends by itself or is idle. worst_wait() says how long that takes.

A process reads all seats under one short lock, decides, and writes its own seat, before the next one reads.
"""

from dumbwaiter.policies.admission.bounding import REACTION, can_swap, turns_before, worst_wait
from dumbwaiter.policies.admission.deciding import (
    NeverFits,
    Wait,
    decide,
    ought_to_park,
    ought_to_yield,
    predicted_start,
    who_lacks_room,
)
from dumbwaiter.policies.admission.prediction import RESIDENCY
from dumbwaiter.policies.admission.seats import (
    HALF_LIFE,
    IDLE,
    LEAST_RESERVE,
    LOADING,
    LONGEST_QUARANTINE,
    PARKING,
    POLL_SLICE,
    POLLING,
    PROBING,
    QUARANTINE_GRACE,
    RESERVE,
    RUNNING,
    STALE,
    Device,
    Grant,
    Seat,
    ask,
    begin_to_park,
    charge,
    found_work,
    give_back,
    go_on,
    is_overdue,
    loaded,
    looked,
    parked,
    predicted_end,
    retain,
    take,
    use_rate,
    virtual_time,
    withdraw,
)
from dumbwaiter.policies.rungs import Rung

__all__ = [
    "HALF_LIFE",
    "IDLE",
    "LEAST_RESERVE",
    "LOADING",
    "LONGEST_QUARANTINE",
    "PARKING",
    "POLLING",
    "POLL_SLICE",
    "PROBING",
    "QUARANTINE_GRACE",
    "REACTION",
    "RESERVE",
    "RESIDENCY",
    "RUNNING",
    "STALE",
    "Device",
    "Grant",
    "NeverFits",
    "Rung",
    "Seat",
    "Wait",
    "ask",
    "begin_to_park",
    "can_swap",
    "charge",
    "decide",
    "found_work",
    "give_back",
    "go_on",
    "is_overdue",
    "loaded",
    "looked",
    "ought_to_park",
    "ought_to_yield",
    "parked",
    "predicted_end",
    "predicted_start",
    "retain",
    "take",
    "turns_before",
    "use_rate",
    "virtual_time",
    "who_lacks_room",
    "withdraw",
    "worst_wait",
]
