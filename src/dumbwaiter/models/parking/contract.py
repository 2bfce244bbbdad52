"""What can be parked and woken."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Parking(ABC):
    """A model's memory on the device, which can be left to others for a while. Called from one thread.

    Nothing here empties the framework's cache: what park() let go of is free for this process, and for others once the
    cache was emptied.
    """

    @property
    @abstractmethod
    def can_park(self) -> bool:
        """Whether there is anything to move, as of now: a model may go to its device as late as with its first input.

        It looks through the whole model, which takes up to some ten milliseconds.
        """

    @abstractmethod
    def park(self) -> None:
        """Let go of the device's memory; what it holds is kept. Twice is no error, nor is it where nothing can move.

        After an error the model is as usable as before: what is not on the device any more is fetched by wake().
        """

    @abstractmethod
    def wake(self) -> None:
        """Have all of it on the device again. Costs nothing when it is.

        All or nothing: where there is no room, the framework's out-of-memory error is raised, and the model is still
        parked; a later call may succeed.
        """
