"""What a simulation may be asked for: more than this is a slip of the pen, and would fill the memory or never end."""

from __future__ import annotations

from dumbwaiter.errors import ConfigError

DAY = 86_400.0
LONGEST = 100 * DAY
"""Seconds of requests."""
LONGEST_SERVICE = DAY
"""Seconds of one input, or of one batch."""
SHORTEST_SERVICE = 1e-6
MOST_REQUESTS = 10_000_000
"""Of one run. It holds some 100 bytes for each."""
MOST_AT_ONCE = 2 * MOST_REQUESTS
"""Requests of all the runs that go on at the same time, and of one run that came out larger than was asked for."""
MOST_ORDERED = 1_000_000
"""Workers, over the time of one run."""
MOST_STEPS = 100_000_000
"""Looks and, at a tenth of a look each, requests of all runs together. It is an hour or two of one core."""
_STEPS_OF_A_REQUEST = 0.1


def check_duration(of: str, seconds: float) -> None:
    """Raises ConfigError where *of*, which lasts so many *seconds*, is longer than LONGEST."""
    if not seconds <= LONGEST:
        raise ConfigError(f"{of} lasts {seconds / DAY:.3g} days; at most {LONGEST / DAY:g} can be simulated")


def check_requests(of: str, count: float, most: int = MOST_REQUESTS) -> None:
    """Raises ConfigError where *of* is more than *most* requests."""
    if not count <= most:
        raise ConfigError(
            f"{of}: about {count:,.0f} requests are too many; at most {most:,} can be simulated at a time"
        )


def check_steps(runs: int, requests: int, looks: float) -> None:
    """Raises ConfigError where so many *runs*, of so many *requests* and *looks* each, would take too long."""
    steps = runs * (looks + _STEPS_OF_A_REQUEST * requests)
    if not steps <= MOST_STEPS:
        raise ConfigError(
            f"{runs:,} runs of {requests:,} requests and {looks:,.0f} looks each are {steps / MOST_STEPS:,.1f} times"
            " what can be simulated in an hour or two; give fewer --seeds, fewer values to try or less time"
        )


def check_ordered(setting: str, count: int) -> None:
    """Raises ConfigError where *setting* has ordered more workers than any pool would."""
    if count > MOST_ORDERED:
        raise ConfigError(
            f"{setting}: more than {MOST_ORDERED:,} workers were ordered in one run; give less --spot-kills, a smaller"
            " --max-replicas or less time"
        )
