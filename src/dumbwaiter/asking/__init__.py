"""Request and reply over a broker: send a message, wait for its answer in an inbox. Gateways and clients share it.

One Asker has one inbox and one task that reads it; answers are matched by correlation id. Messages sent in the same
turn of the event loop travel in one ``send``, and while a ``send`` is on its way the next ones gather behind it.
The Asker does not send a request again: an error reaches whoever asked, who may do so, as while_away() does.
"""

from dumbwaiter.asking.asker import CLAIM_THRESHOLD, Asker
from dumbwaiter.asking.cancelling import cancel
from dumbwaiter.asking.following import follow_to_end
from dumbwaiter.asking.outbox import MAX_SEND
from dumbwaiter.asking.patience import Patience
from dumbwaiter.asking.pending import Pending
from dumbwaiter.asking.polling import Polling, until_found
from dumbwaiter.asking.repeating import while_away
from dumbwaiter.asking.results import await_result
from dumbwaiter.asking.standing import Standing, standing_of

__all__ = [
    "CLAIM_THRESHOLD",
    "MAX_SEND",
    "Asker",
    "Patience",
    "Pending",
    "Polling",
    "Standing",
    "await_result",
    "cancel",
    "follow_to_end",
    "standing_of",
    "until_found",
    "while_away",
]
