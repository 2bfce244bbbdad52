"""The double's management endpoint: queues made, read, listed and deleted over HTTP, as Atom XML.

Source: https://learn.microsoft.com/rest/api/servicebus/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from dumbwaiter.testing.servers.servicebus.queue_settings import Settings
from dumbwaiter.testing.servers.servicebus.store import DEAD, Store
from dumbwaiter.testing.servers.servicebus.tokens import Key, key_of

_ATOM = "http://www.w3.org/2005/Atom"
_QUEUE = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
_COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_LIST = "/$Resources/queues"
_INTERNAL = ("MessageCount", "SizeInBytes", "CountDetails")
#: The order in which the service wants and writes the settings: whoever reads them may rely on it.
_BEFORE_COUNTS = (
    "LockDuration",
    "MaxSizeInMegabytes",
    "RequiresDuplicateDetection",
    "RequiresSession",
    "DefaultMessageTimeToLive",
    "DeadLetteringOnMessageExpiration",
    "DuplicateDetectionHistoryTimeWindow",
    "MaxDeliveryCount",
    "EnableBatchedOperations",
)


class AtomEndpoint(ThreadingHTTPServer):
    """Serves *store* at *port* of *host* to whoever has a token of one of *keys*."""

    daemon_threads = True

    def __init__(self, store: Store, keys: Mapping[str, Key], host: str, port: int) -> None:
        super().__init__((host, port), _Request)
        self.store, self.keys = store, keys


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: AtomEndpoint  # pyright: ignore[reportIncompatibleVariableOverride] - as http.server means it

    def do_GET(self) -> None:
        path, query = self._asked()
        if path == _LIST:
            self._reply(200, self._feed(int(query.get("$skip", ["0"])[0]), int(query.get("$top", ["100"])[0])))
        elif path == "/$namespaceinfo":
            self._reply(200, _NAMESPACE)
        elif (entry := self._entry(path.strip("/"))) is not None:
            self._reply(200, entry)
        else:  # the service says of a queue that is not there that there is nothing in its feed
            self._reply(200, f'<feed xmlns="{_ATOM}"><title type="text">Publicly Listed Services</title></feed>')

    def do_PUT(self) -> None:
        name = self._asked()[0].strip("/")
        try:
            settings = _settings_of(self._body)
        except ValueError as error:
            self._reply(400, f"<Error><Code>400</Code><Detail>{escape(str(error))}</Detail></Error>")
            return
        if self.server.store.create(name, settings):
            self._reply(201, self._entry(name) or "")
        else:
            detail = "SubCode=40900. Conflict. The entity exists already."
            self._reply(409, f"<Error><Code>409</Code><Detail>{detail}</Detail></Error>")

    def do_DELETE(self) -> None:
        if self.server.store.delete(self._asked()[0].strip("/")):
            self._reply(200, "")
        else:
            self._reply(404, "<Error><Code>404</Code><Detail>No such entity.</Detail></Error>")

    def parse_request(self) -> bool:
        """Also read the body, and check the token: who may not manage is told so before anything is done."""
        if not super().parse_request():
            return False
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = key_of(self.headers.get("Authorization", ""), self.server.keys, now=time.time())
        if key is None or not key.manages:
            detail = "The token is not valid." if key is None else "Manage,EntityRead claims required."
            self._reply(401, f"<Error><Code>401</Code><Detail>{detail}</Detail></Error>")
            return False
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Say nothing of what went well."""

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return unquote(parts.path), parse_qs(parts.query)

    def _reply(self, status: int, body: str) -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/atom+xml; charset=utf-8")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _feed(self, skip: int, top: int) -> str:
        names = sorted(self.server.store.shown)
        entries = "".join(self._entry(name) or "" for name in names[skip : skip + top])
        link = f'<link rel="{{}}" href="{{}}{_LIST}?$skip={{}}&amp;$top={top}"/>'
        place = f"https://{self.headers.get('Host')}"
        links = link.format("self", place, skip)
        links += link.format("next", place, skip + top) if skip + top < len(names) else ""
        return f'<feed xmlns="{_ATOM}"><title type="text">Queues</title>{links}{entries}</feed>'

    def _entry(self, name: str) -> str | None:
        store = self.server.store
        with store.lock:
            entity = store.entities.get(name.lower())
            if entity is None or entity.is_dead_letters:
                return None
            scheduled = sum(1 for kept in entity.kept.values() if kept.due)
            counts = {
                "ActiveMessageCount": len(entity.kept) - scheduled,
                "DeadLetterMessageCount": len(store.entities[entity.name + DEAD].kept),
                "ScheduledMessageCount": scheduled,
            }
            values, shown = entity.settings.values, store.shown[entity.name]
        return _entry_of(shown, values, counts)


def _entry_of(name: str, values: Mapping[str, str], counts: Mapping[str, int]) -> str:
    written = [f"<{key}>{escape(values[key])}</{key}>" for key in _BEFORE_COUNTS]
    written.append(f"<SizeInBytes>0</SizeInBytes><MessageCount>{sum(counts.values())}</MessageCount>")
    written += [f"<{key}>{escape(value)}</{key}>" for key, value in values.items() if key not in _BEFORE_COUNTS]
    inner = "".join(f"<d:{key}>{value}</d:{key}>" for key, value in counts.items())
    inner += "<d:TransferDeadLetterMessageCount>0</d:TransferDeadLetterMessageCount>"
    inner += "<d:TransferMessageCount>0</d:TransferMessageCount>"
    written.append(f'<CountDetails xmlns:d="{_COUNTS}">{inner}</CountDetails>')
    description = f'<QueueDescription xmlns="{_QUEUE}">{"".join(written)}</QueueDescription>'
    return (
        f'<entry xmlns="{_ATOM}"><id>{quote(name)}</id><title type="text">{escape(name)}</title>'
        f'<content type="application/xml">{description}</content></entry>'
    )


def _settings_of(body: bytes) -> Settings:
    """The settings in a request's *body*. Raises ValueError."""
    try:
        root = ET.fromstring(body)  # noqa: S314 - a test's own client, on the loopback interface
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from error
    description = root.find(f".//{{{_QUEUE}}}QueueDescription")
    given = {} if description is None else {one.tag.rpartition("}")[2]: one.text or "" for one in description}
    return Settings({name: value for name, value in given.items() if name not in _INTERNAL})


_NAMESPACE = (
    f'<entry xmlns="{_ATOM}"><content type="application/xml"><NamespaceInfo xmlns="{_QUEUE}">'
    "<MessagingSKU>Standard</MessagingSKU><Name>double</Name><NamespaceType>Messaging</NamespaceType>"
    "</NamespaceInfo></content></entry>"
)
