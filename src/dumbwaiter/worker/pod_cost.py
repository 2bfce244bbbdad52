"""What ending this pod would cost, told to Kubernetes, which ends the cheapest pods of a Deployment first.

A worker in a pod patches its own pod's annotation with the work-seconds that it holds. That is rare, for each patch is
a write in the cluster's own store: the cost is rounded up to a power of two, and told when that has changed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
"""https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#pod-deletion-cost"""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TELL_EVERY = 10.0
_WITHIN = 5.0
_OLD = 60.0
_MOST = 2**30
_log = logging.getLogger(__name__)


def cost_of(seconds: float) -> int:
    """What ending somebody costs who holds so many *seconds* of work: 0, or the next power of two. Pure."""
    return 0 if seconds <= 0.0 else min(_MOST, 2 ** max(0, math.ceil(math.log2(seconds))))


class PodCost:
    """Tells the API server at *url* what ending the pod *name* in *namespace* would cost.

    *account* is the folder with the pod's token and the certificate to trust. *costs* is a folder that all workers of
    the pod have, and nobody else, where each says what it holds, so that their sum is told; None where there is one
    worker.
    """

    def __init__(
        self, url: str, namespace: str, name: str, *, account: Path = ACCOUNT, costs: Path | None = None
    ) -> None:
        self._url = f"{url}/api/v1/namespaces/{namespace}/pods/{name}"
        self._account = account
        self._costs = costs
        self._told: int | None = None
        self._has_failed = False

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None, *, account: Path = ACCOUNT) -> PodCost | None:
        """That of the pod that this process is in; None where it is in none that says which, or has no token."""
        environ = os.environ if environ is None else environ
        name, namespace = environ.get("POD_NAME"), environ.get("POD_NAMESPACE")
        host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT_HTTPS", "443")
        if not (name and namespace and host and (account / "token").is_file()):
            return None
        host = f"[{host}]" if ":" in host else host
        costs = environ.get("POD_COSTS")
        return cls(f"https://{host}:{port}", namespace, name, account=account, costs=Path(costs) if costs else None)

    async def run(self, seconds: Callable[[], float]) -> None:
        """Tell every few seconds what *seconds* says, until cancelled."""
        while True:
            await self.tell(seconds())
            await asyncio.sleep(TELL_EVERY)

    async def tell(self, seconds: float) -> None:
        """That this worker holds so many *seconds* of work. What fails is logged once, and tried again next time."""
        try:
            cost = cost_of(seconds if self._costs is None else _sum(self._costs, seconds))
            if cost == self._told:
                return
            await self._patch(cost)
        except Exception as error:  # whatever it is, nobody's request may fail because of it
            if not self._has_failed:
                _log.warning(
                    "Kubernetes cannot be told what ending this pod would cost: %s", error or type(error).__name__
                )
            self._has_failed = True
        else:
            self._told, self._has_failed = cost, False

    async def _patch(self, cost: int) -> None:
        import httpx  # noqa: PLC0415 - only workers in pods need it

        # Both are renewed now and then.
        token = (self._account / "token").read_text().strip()
        trusted = ssl.create_default_context(cafile=str(self._account / "ca.crt"))
        body: dict[str, Any] = {"metadata": {"annotations": {ANNOTATION: str(cost)}}}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
        async with httpx.AsyncClient(verify=trusted, timeout=_WITHIN, trust_env=False) as client:
            answer = await client.patch(self._url, content=json.dumps(body), headers=headers)
            answer.raise_for_status()


def _sum(folder: Path, seconds: float) -> float:
    """*seconds* and what the pod's other workers last said in *folder*, unless they have been silent for long."""
    folder.mkdir(parents=True, exist_ok=True)
    # Containers of a pod have process ids of their own, which are alike; the container's own folder is not shared.
    mine = folder / os.environ.get("POD_CONTAINER", str(os.getpid()))
    mine.write_text(repr(seconds))
    now = time.time()
    return seconds + sum(
        float(path.read_text() or 0.0)
        for path in folder.iterdir()
        if path != mine and now - path.stat().st_mtime < _OLD
    )
