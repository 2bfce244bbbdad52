"""Why a runner died: exit code, signal, the kernel's out-of-memory killer, the stacks at the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec

from dumbwaiter.signals import describe_exit

#: With this code a runner exits when nothing that it does on its device can succeed any more.
EXIT_STICKY = 70
#: The code of a death by that.
DEVICE_ERROR = "device-error"
_SIGKILL_EXIT = -int(signal.SIGKILL)
_STACKS_NCHARS = 16_000


class CauseOfDeath(msgspec.Struct, frozen=True, kw_only=True):
    """*code* for programs: ``runner-crashed``, ``runner-hung``, ``out-of-memory-killed`` or ``device-error``; the rest
    for people.
    """

    code: str
    message: str
    detail: str = ""


def oom_kill_count(cgroups: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How often the kernel's out-of-memory killer has struck in this process's control group; None if untold.

    *cgroups* is the text of /proc/self/cgroup. Source: the kernel's cgroup-v1 memory.oom_control and cgroup-v2
    memory.events documents.
    """
    text = Path("/proc/self/cgroup").read_text() if cgroups is None else cgroups
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            places = [root / "memory" / path.lstrip("/") / "memory.oom_control"]
        elif not controllers:
            places = [mount / path.lstrip("/") / "memory.events" for mount in (root, root / "unified")]
        else:
            continue
        for place in places:
            count = _field(place, "oom_kill")
            if count is not None:
                return count
    return None


def explain(
    returncode: int, *, oom_before: int | None, oom_after: int | None, hung_for: float | None, stacks: str
) -> CauseOfDeath:
    """Put the evidence into words. *returncode* as subprocess gives it; *hung_for* seconds if we killed it for that."""
    detail = stacks[-_STACKS_NCHARS:]
    if hung_for is not None:
        return CauseOfDeath(
            code="runner-hung",
            message=f"the model gave no sign of life for {hung_for:.1f} s and was killed; raise its timeout if it "
            "really needs longer",
            detail=detail,
        )
    if returncode == _SIGKILL_EXIT and oom_before is not None and oom_after is not None and oom_after > oom_before:
        return CauseOfDeath(
            code="out-of-memory-killed",
            message="the kernel's out-of-memory killer killed the runner (SIGKILL): the input or the model needs more "
            "host memory than there is",
            detail=f"oom_kill count of the control group: {oom_before} before, {oom_after} after\n{detail}",
        )
    if returncode == EXIT_STICKY:
        return CauseOfDeath(
            code=DEVICE_ERROR,
            message="the runner ended itself: after an error of the device, nothing on it could succeed in that process"
            " any more; its log names the error",
            detail=detail,
        )
    return CauseOfDeath(code="runner-crashed", message=f"the runner {describe_exit(returncode)}", detail=detail)


def read_stacks(fd: int) -> str:
    """What faulthandler wrote into the memory file *fd*."""
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0).decode(errors="replace")


def _field(place: Path, name: str) -> int | None:
    try:
        lines = place.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None
