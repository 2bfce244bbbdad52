"""The model's call for a batch in which somebody follows: reported while it runs, interrupted when nobody wants it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from dumbwaiter.models.contract import LoadedModel
from dumbwaiter.worker.interrupting import Canceled, Interrupted, Interrupter
from dumbwaiter.worker.pipe import Item
from dumbwaiter.worker.reporting import Reporter

_log = logging.getLogger(__name__)


class Attempt:
    """Stands in for the model in run_batch(). starting() says which places of the batch the next call is for."""

    def __init__(self, model: LoadedModel, items: Sequence[Item], interrupter: Interrupter, reporter: Reporter) -> None:
        self._model = model
        self._items = items
        self._interrupter = interrupter
        self._reporter = reporter
        self._now: Sequence[Item] = ()
        self._has_started = False

    def starting(self, places: range) -> None:
        """The next call is for *places*."""
        self._now = [self._items[place] for place in places]
        if not self._has_started:
            self._has_started = True
            self._reporter.started(item.slot for item in self._items if item.reports)

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """As LoadedModel.predict; Canceled in all places when it was interrupted.

        A batch with a member that cannot be cancelled runs to its end. What a batch of several prints is nobody's.
        """
        if not all(item.reports for item in self._now):
            return self._model.predict(inputs)
        on_chunk = None
        if len(self._now) == 1:
            self._reporter.listen(self._now[0].slot)
            on_chunk = self._on_chunk(self._now[0].slot)
        try:
            slots = [item.slot for item in self._now]
            return self._interrupter.call(slots, self._model.predict, inputs, on_chunk)
        except Interrupted:
            return [Canceled("cancelled while it ran")] * len(inputs)
        finally:
            self._reporter.stop_listening()

    def _on_chunk(self, slot: int) -> Callable[[Any], None]:
        def report(chunk: Any) -> None:
            try:
                content_type, body = self._model.encode(chunk)
            except Exception as error:
                # The whole output may be encodable all the same, and it alone is the answer.
                _log.warning("a chunk of the output cannot be shown: %s", error)
            else:
                self._reporter.chunk(slot, content_type, body)

        return lambda chunk: self._interrupter.undisturbed(report, chunk)
