"""A process on a CUDA card: it does what it is told, line by line, and says in JSON how it went.

python card_process.py ADDRESS

``open``, ``info`` (free and all, as CUDA has it), ``hold N``, ``free`` (the last thing held), ``reserved``, ``peak``,
``reset``, ``empty``, ``exhaust``, ``compute``, ``fail KIND``, ``synchronize``, ``preparable``,
``prepare N``, ``aside``, ``is_native``, ``load N`` (a network of so many bytes),
``answer``, ``touch``, ``graph``, ``park``, ``wake``, ``storages``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback

from dumbwaiter.devices.opening import open_allocator
from dumbwaiter.models.parking.tensors import Tensors
from dumbwaiter.models.parking.transfer import Transfer


class CardProcess:
    """Such a process, seen from the test. Use it with ``with``; at the end it is killed."""

    def __init__(self, device):
        command = [sys.executable, __file__, device.address]
        environment = {**os.environ, **device.environment()}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=environment, **pipes)
        assert self.process.stdout.readline() == '"ready"\n'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def do(self, *words):
        """What came of the order: a result, or of an error what is made of it."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self):
        """kill -9, and wait for the end."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Counting(Transfer):
    """Knows how many bytes went to the host, and how many came from there."""

    def __init__(self, torch):
        super().__init__(torch)
        self.out = self.back = 0

    def copy(self, source, target):
        if source.is_cuda:
            self.out += source.numel()
        else:
            self.back += source.numel()
        super().copy(source, target)


class Orders:
    """What can be done; each returns what JSON can hold."""

    def __init__(self, address):
        self.allocator = open_allocator(address)
        self.holdings = []
        self.model = {}
        self.parking = Tensors(self.model, self._counting)
        self.transfer = None

    def _counting(self, torch):
        self.transfer = Counting(torch)
        return self.transfer

    @property
    def torch(self):
        return sys.modules["torch"]

    def open(self):
        self.allocator.open_context()

    def info(self):
        return self.torch.cuda.mem_get_info(0)

    def hold(self, nbytes):
        self.holdings.append(self.torch.empty(int(nbytes), dtype=self.torch.uint8, device="cuda"))

    def free(self):
        self.holdings.pop()

    def exhaust(self):
        """Ask for more than there is, half a GiB at a time."""
        held = []
        while True:
            held.append(self.torch.ones(1 << 27, dtype=self.torch.float32, device="cuda"))

    def compute(self):
        """Whether a product of matrices is right."""
        torch = self.torch
        return torch.equal(torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda"), self._sixty_fours())

    def _sixty_fours(self):
        return self.torch.full((64, 64), 64.0, device="cuda")

    def fail(self, kind):
        torch = self.torch
        if kind == "assert":
            torch.zeros(4, device="cuda")[torch.tensor([1 << 20], device="cuda")].tolist()
        elif kind == "shape":
            torch.ones(3, 4, device="cuda") @ torch.ones(3, 4, device="cuda")
        else:
            torch.ones(3, dtype=torch.uint8, device="cuda")[5]

    def load(self, nbytes):
        """Layers of 16 MiB, and a small one that batches write to."""
        torch = self.torch
        torch.manual_seed(1)
        layers = [torch.nn.Linear(2048, 2048, bias=False, device="cuda") for _ in range(int(nbytes) >> 24)]
        self.model["network"] = torch.nn.Sequential(*layers, torch.nn.BatchNorm1d(2048, device="cuda")).eval()

    def answer(self):
        """Of the same inputs always; the bits of all its numbers, added up."""
        torch = self.torch
        with torch.inference_mode():
            inputs = torch.linspace(-1, 1, 4 * 2048, device="cuda").view(4, 2048)
            return int(self.model["network"](inputs).view(torch.int32).to(torch.int64).sum())

    def aside(self):
        """Cache 64 MiB for a stream that is not the usual one."""
        with self.torch.cuda.stream(self.torch.cuda.Stream()):
            self.torch.empty(1 << 26, dtype=self.torch.uint8, device="cuda")

    def is_native(self):
        """Whether torch's allocator works as it does by default."""
        settings = os.environ.get("PYTORCH_ALLOC_CONF", "") + os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
        return "expandable_segments:True" not in settings and "backend" not in settings

    def preparable(self):
        return self.allocator.preparable()

    def prepare(self, nbytes):
        self.allocator.prepare(int(nbytes))

    def graph(self):
        """Capture the network in a CUDA graph, which the model keeps; whether it can be parked then."""
        torch = self.torch
        inputs = torch.zeros(4, 2048, device="cuda")
        with torch.inference_mode():
            self.model["network"](inputs)
            self.model["graph"] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.model["graph"]):
                self.model["network"](inputs)
        return self.parking.can_park

    def park(self):
        return self._moved(self.parking.park)

    def wake(self):
        return self._moved(self.parking.wake)

    def _moved(self, move):
        """Seconds, and bytes out and back."""
        out, back = (self.transfer.out, self.transfer.back) if self.transfer else (0, 0)
        self.allocator.synchronize()
        started = time.perf_counter()
        move()
        self.allocator.synchronize()
        took = time.perf_counter() - started
        self.allocator.empty_cache()
        return [took, self.transfer.out - out, self.transfer.back - back]

    def storages(self):
        """Bytes that the network's parameters have on the card."""
        return sum(one.untyped_storage().nbytes() for one in self.model["network"].parameters())

    def touch(self):
        """Write to one number of one layer, past torch's own count of writes."""
        self.model["network"][0].weight.data.view(-1)[7] += 1.0

    def reserved(self):
        return self.allocator.reserved()

    def peak(self):
        return self.allocator.peak()

    def reset(self):
        self.allocator.reset_peak()

    def empty(self):
        self.allocator.empty_cache()

    def synchronize(self):
        self.allocator.synchronize()

    def attempt(self, word, *arguments):
        """What it returns, or of an error its type, text and what the allocator makes of it."""
        try:
            return getattr(self, word)(*arguments)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            return {
                "type": f"{type(error).__module__}.{type(error).__name__}",
                "text": str(error),
                "out_of_memory": self.allocator.is_out_of_memory(error),
                "sticky": self.allocator.is_sticky(error),
            }


def say(what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def serve(address):
    orders = Orders(address)
    say("ready")
    for line in sys.stdin:
        say(orders.attempt(*line.split()))


if __name__ == "__main__":
    serve(sys.argv[1])
