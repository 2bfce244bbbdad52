"""How a process ended is said in words, with the meaning of a signal where its name says little."""

from __future__ import annotations

import pytest

from dumbwaiter.signals import describe_exit


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-15, "was killed by SIGTERM"),
        (-11, "was killed by SIGSEGV (segmentation fault)"),
        (-63, "was killed by signal 63"),
    ],
)
def test_an_exit_is_described_in_words(code, words):
    assert describe_exit(code) == words
