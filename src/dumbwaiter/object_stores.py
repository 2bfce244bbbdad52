"""Object stores by URL, through obstore, with times that suit large objects and slow readers.

obstore by itself gives up on a body that takes longer than 30 s, and on reading it again after 180 s: an object of
some gigabytes, or a caller who reads slowly, would never see its end. Here nothing is wrong as long as bytes come.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SILENCE = 20.0
"""After so many seconds without a byte from a service, a request is asked again, or has failed."""
RETRY_FOR = 30.0
"""So many seconds after it was asked first a request is not asked again."""

ONE_DAY = "1day"

_TIMES = {"connect_timeout": "5s", "read_timeout": f"{SILENCE:g}s", "timeout": ONE_DAY}
#: Given our times, obstore no longer looks into the environment for these.
_FROM_ENVIRONMENT = (
    *_TIMES,
    "allow_http",
    "allow_invalid_certificates",
    "http1_only",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "user_agent",
)
_PREFIXES = {"s3": "AWS_", "az": "AZURE_", "gs": "GOOGLE_"}
#: The same, by what obstore calls the services.
_PREFIXES_OF = {"S3": "AWS_", "MicrosoftAzure": "AZURE_", "GCS": "GOOGLE_"}
BUCKETS = {"s3": "bucket", "az": "container", "gs": "bucket"}
"""What each scheme's service calls the place that a URL names first."""
NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
"""What services say of a bucket that is not there."""
NO_OBJECT = frozenset({"NoSuchKey", "BlobNotFound"})
"""What services say of an object that is not there, in a bucket that is."""

_XML_ERROR = re.compile(
    r"(<\?xml|<Error>).*?<Code>(?P<code>[^<]*)</Code>.*?<Message>(?P<said>[^<]*)</Message>.*</Error>"
)
#: What Azure puts behind its words, on lines of their own.
_IDENTIFIERS = re.compile(r" *RequestId:\S* Time:\S*")
_CODE = re.compile(r"<Code>([^<]*)</Code>")


def connect(url: str, *, retry_for: float = RETRY_FOR, within: str = ONE_DAY) -> ObjectStore:
    """The store at *url* (``s3://``, ``gs://``, ``az://``); credentials and addresses come from the environment.

    A request that failed is asked again for *retry_for* seconds; each may take as long as *within* says ("5s", "1day").
    Raises ConfigError for a URL that names none; does no I/O.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415 - slow to import, and not needed by all
    from obstore.store import from_url  # noqa: PLC0415

    try:
        return from_url(url, client_options=client_options(url, within=within), retry_config=_retries(retry_for))
    except (BaseError, ValueError) as error:
        why = reason(error).replace(url, shown(url))  # it may quote the URL, with what is secret in it
        raise ConfigError(f"cannot use the blob store {shown(url)!r}: {why}{_remedy(url, why)}") from error


def reason(error: Exception) -> str:
    """What obstore says of an *error*, in one line, without the XML around it and the dump of its Rust error behind."""
    text = " ".join(str(error).split("\n\n", maxsplit=1)[0].split()) or type(error).__name__
    text = _XML_ERROR.sub(lambda found: f"{found['code']}: {_IDENTIFIERS.sub('', found['said'])}", text)
    if "builder error" in text and " http://" in text:
        name = next((prefix for service, prefix in _PREFIXES_OF.items() if f"Generic {service} error" in text), "")
        text = f"{text}; without TLS it is not talked to: set {name}ALLOW_HTTP=true, or give it an https:// address"
    if text.endswith("error sending request"):
        text = f"{text}; look whether it runs, and at its address"
    return text


def error_code(error: Exception) -> str | None:
    """What the service calls *error*, such as NO_BUCKET holds; None where it gave no code, as in answers to HEAD."""
    found = _CODE.search(str(error))
    return found[1] if found else None


def client_options(url: str, *, within: str = ONE_DAY) -> Any:
    """How the service of *url* is talked to: our times, and what the environment says otherwise."""
    prefix = _PREFIXES.get(url.partition(":")[0].lower(), "")
    named = {name: os.environ.get(prefix + name.upper()) for name in _FROM_ENVIRONMENT if prefix}
    return {**_TIMES, "timeout": within, **{name: value for name, value in named.items() if value is not None}}


def _retries(seconds: float) -> Any:
    return {"max_retries": 10, "retry_timeout": timedelta(seconds=seconds)}


def _remedy(url: str, why: str) -> str:
    """What to do about *why* the store at *url* cannot be used, where that is known."""
    scheme = url.partition(":")[0].lower()
    if "Unable to recognise URL" in why and scheme in BUCKETS:
        return f"; write {scheme}://{BUCKETS[scheme]}/prefix"
    if "Account must be specified" in why:
        return "; set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or another credential"
    return ""
