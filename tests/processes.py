"""The command line as real processes, in a project folder with light models."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pty
import queue
import signal
import subprocess
import sys
import threading
import time

import httpx
import psutil

from dumbwaiter.testing import eventually

MODELS = '''
import os
import pathlib
import time


class Shout:
    """One text at a time."""

    def __call__(self, text: str) -> str:
        if text == "wrong":
            raise ValueError("this text is wrong")
        return text.upper()


class Add:
    def __call__(self, numbers: dict) -> float:
        return sum(numbers.values())


class Slow:
    def __call__(self, text: str) -> str:
        pathlib.Path("slow.started").touch()
        time.sleep(float(text))
        return text


class Picky:
    """Its constructor raises until there is a file named weights."""

    def __init__(self):
        with open("tries", "a") as tries:
            tries.write("x")
        if not os.path.exists("weights"):
            raise RuntimeError("no weights in this house")

    def __call__(self, text: str) -> str:
        return text.title()
'''


def make_project(folder):
    (folder / "light.py").write_text(MODELS)
    return folder


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DUMBWAITER_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "200", **more}


def run_in(project, *arguments, stdin=b"", **variables):
    command = [sys.executable, "-m", "dumbwaiter", *arguments]
    streams = {"input": stdin, "capture_output": True}
    done = subprocess.run(command, cwd=project, env=environment(**variables), timeout=50, check=False, **streams)
    done.raw = done.stdout
    done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    return done


#: Makes standard input the terminal that Ctrl-C comes from, and then becomes Python with the arguments that follow.
TAKE_THE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Terminal:
    """One command on a terminal of its own; *shown* is all that it wrote there."""

    def __init__(self, project, *arguments, **variables):
        self.shown = ""
        # Not pty.fork(): a fork of a process with threads may deadlock.
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-c", TAKE_THE_TERMINAL, "-m", "dumbwaiter", *arguments]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        known = environment(TERM="xterm-256color", **variables)
        self.process = subprocess.Popen(command, cwd=project, env=known, start_new_session=True, **streams)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # EIO: the command has closed its end
            while piece := os.read(self._ours, 65536):
                self.shown += piece.decode(errors="replace").replace("\r\n", "\n")

    def type(self, text):
        os.write(self._ours, text.encode())

    def finish(self, within=30.0):
        """Wait for the end and return the exit code."""
        try:
            return self.process.wait(timeout=within)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(timeout=5)
            os.close(self._ours)


def run_on_terminal(project, *arguments, **variables):
    """Exit code and what was shown."""
    terminal = Terminal(project, *arguments, **variables)
    return terminal.finish(), terminal.shown


class Serving:
    """`dumbwaiter serve --json` in a project, or `autoscale`; its events come in by a thread."""

    def __init__(self, project, arguments, variables, *, word="serve"):
        port = ["--port", "0"] if word == "serve" else []
        command = [sys.executable, "-m", "dumbwaiter", word, *arguments, *port, "--json"]
        self.log = (project / "serve.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=project, env=environment(**variables), stdout=subprocess.PIPE, stderr=self.log
        )
        self.project = project
        self.log_file = project / "serve.log"
        self.gateway = ""
        self.models = {}
        self.pids = {}
        self.run = functools.partial(run_in, project)
        self._events = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def event(self, kind, within=30.0, **facts):
        """The next event of this kind with these facts; earlier others are passed over."""
        give_up_at = time.monotonic() + within
        while True:
            try:
                event = self._events.get(timeout=max(0.0, give_up_at - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} {facts} within {within} s\n{self.log_file.read_text()}") from None
            assert event is not None, f"serve ended before {kind} {facts}\n{self.log_file.read_text()}"
            if event["event"] == kind and all(event.get(name) == value for name, value in facts.items()):
                return event

    def ready(self):
        """Wait until all is ready, and keep the addresses and process ids."""
        event = self.event("ready")
        self.gateway, self.models, self.pids = event["gateway"], event["models"], event["pids"]
        return self

    def predict(self, model, text):
        """The response to a prediction of a text by REST."""
        url, headers = f"{self.gateway}/v1/models/{model}/predictions", {"Content-Type": "text/plain"}
        with httpx.Client(trust_env=False, timeout=40.0) as client:
            return client.post(url, content=text, headers=headers)

    def stop(self, number=signal.SIGTERM, within=40.0):
        """Send *number* and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=within)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


@contextlib.contextmanager
def starting(folder):
    """Start `dumbwaiter serve ARGUMENTS` in *folder*, or another *word*; what is left running is stopped at the end."""
    running = []

    def start(*arguments, word="serve", **variables):
        running.append(Serving(folder, arguments, variables, word=word))
        return running[-1]

    try:
        yield start
    finally:
        for serving in running:
            serving.close()


async def gone(processes):
    """All of them have ended, within a while. (A zombie has ended, too: nobody here is its parent.)"""
    await eventually(lambda: not [one for one in processes if lives(one)], within=20.0, what="the end of all processes")


def lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(serving):
    return [psutil.Process(serving.process.pid), *psutil.Process(serving.process.pid).children(recursive=True)]
