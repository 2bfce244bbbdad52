"""Notices that a machine which was lent cheaply is taken back: asked of the cloud's metadata service, from within.

Sources:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

from __future__ import annotations

import asyncio
import datetime as dt
import email.utils
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from dumbwaiter.policies.backing_off import back_off

if TYPE_CHECKING:
    import httpx

    from dumbwaiter.config import WorkerSettings

GCP_NOTICE = 30.0
"""A notice of Google's does not say when; so many seconds later is what it grants at least."""
AFTERWARDS = 60.0
"""Whoever is still there so many seconds after the end of its machine was not taken after all."""
_ADDRESSES = {
    "aws": "http://169.254.169.254",
    "gcp": "http://169.254.169.254",  # its name, metadata.google.internal, is resolved by itself
    "azure": "http://169.254.169.254",
}
_AWS_EVERY, _AZURE_EVERY = 5.0, 1.0
_AWS_TOKEN_LASTS = 21_600
_GCP_WAIT = 60
#: The first request starts Azure's service for this machine, which can take two minutes.
_AZURE_WITHIN = 150.0
_WITHIN = 10.0
_CONNECT_WITHIN = 2.0
_FIRST_BACK_OFF, _LAST_BACK_OFF = 1.0, 60.0
_log = logging.getLogger(__name__)


async def heed_notice(options: WorkerSettings, leave_by: Callable[[float], object]) -> float:
    """Wait for a notice of options.spot and call *leave_by* with the seconds that are left then; they are returned.

    While the service does not answer, it is asked again and again, which is logged once.
    """
    import httpx  # noqa: PLC0415 - only workers on such machines need it

    address = options.spot_url or _ADDRESSES[options.spot]
    timeout = httpx.Timeout(_WITHIN, connect=_CONNECT_WITHIN)
    # No proxy: what it would say of its own machine is not ours.
    async with httpx.AsyncClient(base_url=address, timeout=timeout, trust_env=False) as service:
        left = await _first_notice(options.spot, service, address)
        _log.warning("%s takes this machine in %.0f s: leaving", options.spot, left)
        leave_by(left)
        return left


async def _first_notice(cloud: str, service: httpx.AsyncClient, address: str) -> float:
    failures = 0
    while True:
        try:
            async with aclosing(_CLOUDS[cloud](service)) as looks:
                async for left in looks:
                    failures = 0
                    if left is not None:
                        return left
        except Exception as error:  # whatever it answers, the next answer may be a notice
            failures += 1
            if failures == 1:
                _log.warning(
                    "the metadata service at %s does not say whether this machine is taken away (worker.spot = %r):"
                    " %s; it is asked again",
                    *(address, cloud, str(error) or type(error).__name__),
                )
            await asyncio.sleep(back_off(failures, first=_FIRST_BACK_OFF, longest=_LAST_BACK_OFF))


async def _aws(service: httpx.AsyncClient) -> AsyncGenerator[float | None]:
    """Each look: the seconds that are left, None while there is no notice. Asked with a token (IMDSv2)."""
    token, renewed_at = "", float("-inf")
    while True:
        if time.monotonic() - renewed_at > _AWS_TOKEN_LASTS / 2:
            asked = await service.put(
                "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_AWS_TOKEN_LASTS)}
            )
            token, renewed_at = asked.raise_for_status().text, time.monotonic()
        headers = {"X-aws-ec2-metadata-token": token}
        answer = await service.get("/latest/meta-data/spot/instance-action", headers=headers)
        if answer.status_code == 404:
            yield None
        else:
            answer.raise_for_status()  # 401: the token is no longer good, and the next try has a new one
            yield _until(dt.datetime.fromisoformat(answer.json()["time"]))
        await asyncio.sleep(_AWS_EVERY)


async def _gcp(service: httpx.AsyncClient) -> AsyncGenerator[float | None]:
    """As _aws(). It answers when that changes; the first time at once."""
    seen = "0"
    while True:
        answer = await service.get(
            "/computeMetadata/v1/instance/preempted",
            params={"wait_for_change": "true", "last_etag": seen, "timeout_sec": str(_GCP_WAIT)},
            headers={"Metadata-Flavor": "Google"},
            timeout=_GCP_WAIT + _WITHIN,
        )
        text = answer.raise_for_status().text.strip().upper()
        if text not in {"TRUE", "FALSE"}:
            raise ValueError(f"it said {text[:40]!r}, and not TRUE or FALSE")
        yield GCP_NOTICE if text == "TRUE" else None
        if answer.headers.get("etag", seen) == seen:
            await asyncio.sleep(_AZURE_EVERY)  # one that does not wait is not asked without end
        seen = answer.headers.get("etag", seen)


async def _azure(service: httpx.AsyncClient) -> AsyncGenerator[float | None]:
    """As _aws(). All machines of a set see the events of each, so ours are told by their name."""
    headers = {"Metadata": "true"}
    named = await service.get(
        "/metadata/instance/compute/name", params={"api-version": "2021-02-01", "format": "text"}, headers=headers
    )
    name = named.raise_for_status().text.strip()
    while True:
        answer = await service.get(
            "/metadata/scheduledevents",
            params={"api-version": "2020-07-01"},
            headers=headers,
            timeout=_AZURE_WITHIN,
        )
        events: list[Mapping[str, Any]] = answer.raise_for_status().json()["Events"]
        ours = [each for each in events if each["EventType"] == "Preempt" and name in each["Resources"]]
        yield min(map(_azure_left, ours), default=None)
        await asyncio.sleep(_AZURE_EVERY)


def _azure_left(event: Mapping[str, Any]) -> float:
    """It says no time when it has begun."""
    not_before = event.get("NotBefore")
    return _until(email.utils.parsedate_to_datetime(not_before)) if not_before else 0.0


def _until(moment: dt.datetime) -> float:
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
    return max(0.0, moment.timestamp() - time.time())


_CLOUDS: Mapping[str, Callable[[httpx.AsyncClient], AsyncGenerator[float | None]]] = {
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
}
