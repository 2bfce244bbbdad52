"""NVML's Python bindings, answering from a table."""

from __future__ import annotations


class NvmlError(Exception):
    def __init__(self, value):
        super().__init__(f"what NVML says of {value}")
        self.value = value


class Nvml:
    """The calls of nvidia-ml-py that are used, answered from a table: handle -> what there is to know of it.

    Handles of cards are numbers, those of instances pairs. An answer that is an exception is raised.
    """

    NVMLError = NvmlError

    def __init__(self, *cards):
        self.cards = cards

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        every = [*range(len(self.cards)), *((c, i) for c, card in enumerate(self.cards) for i in card.get("mig", {}))]
        return next(handle for handle in every if self._of(handle)["uuid"] in {uuid, uuid.encode()})

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return self._told(handle, "uuid")

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return self._told(handle, "name")

    def nvmlDeviceGetMigMode(self, handle):  # noqa: N802
        return self._told(handle, "mode")

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):  # noqa: N802
        if index not in self._of(handle)["mig"]:
            raise NvmlError(6)
        if "unseen" in self._of((handle, index)):
            raise self._of((handle, index))["unseen"]
        return (handle, index)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return self._told(handle, "memory")

    def _of(self, handle):
        return self.cards[handle[0]]["mig"][handle[1]] if isinstance(handle, tuple) else self.cards[handle]

    def _told(self, handle, what):
        answer = self._of(handle)[what]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Info:
    def __init__(self, total, used):
        self.total, self.used, self.free = total, used, total - used


def card(uuid="GPU-aaaa1111-0000", **more):
    """What there is to know of one card that cannot be split."""
    return {"uuid": uuid, "name": "A100", "mode": NvmlError(3), "memory": Info(8000, 300), **more}
