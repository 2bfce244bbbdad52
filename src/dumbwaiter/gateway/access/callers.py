"""Who may ask: each request's caller, by API key, or by address where none is asked for.

A gateway that listens on loopback trusts who can reach it, unless told otherwise; any other asks for keys.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

import msgspec

from dumbwaiter.blobs.keyring import ApiKey, Keyring, has_secret, is_usable, read_token
from dumbwaiter.errors import BlobError
from dumbwaiter.gateway.access.origins import KnownHosts
from dumbwaiter.gateway.access.quotas import NO_QUOTA, Place, Quotas
from dumbwaiter.gateway.http.bodies import has_body
from dumbwaiter.gateway.http.crowd import CALLER
from dumbwaiter.gateway.http.heads import check_said_once
from dumbwaiter.gateway.http.problem_codes import RETRY_SOON
from dumbwaiter.gateway.http.problems import Problem, ProblemError, encode
from dumbwaiter.gateway.http.sending import send_whole
from dumbwaiter.message import LONGEST_TENANT, is_tenant_name
from dumbwaiter.tasks import end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from dumbwaiter.blobs.store import BlobStore
    from dumbwaiter.config import GatewaySettings

READ_EVERY = 3.0
"""Seconds between two looks at the keys: a revoked one is refused after that at the latest."""
READ_AGAIN_AFTER = 1.0
"""A key that nobody knows is looked for at most so often."""
READ_WITHIN = 2.0
"""How long a request waits for such a look."""
TRUSTED_FOR = 10.0
"""Keys that were read longer ago are read again before anyone is let in, unless the store is down."""
MOST_HOSTS = 1000

_OPEN = ("/v2/health", "/docs")
"""What everybody may see: whether the gateway is well, and its page for people, on which a key can be typed in."""
_OPEN_BELOW = tuple(f"{path}/" for path in _OPEN)
_ASKING_THEMSELVES = frozenset({("GET", "/"), ("HEAD", "/")})
"""These send browsers on to that page, and let nobody else in without admit()."""
_CHALLENGE = 'Bearer realm="dumbwaiter"'

_log = logging.getLogger("dumbwaiter.gateway")


class Caller(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asks. Without an API key *key* is None, and *tenant* is the one that the request named, if any."""

    tenant: str | None = None
    key: ApiKey | None = None

    @property
    def key_id(self) -> str | None:
        """The id of the caller's API key, if it has one."""
        return None if self.key is None else self.key.id

    @property
    def owner(self) -> object:
        """The same for all callers who share what a gateway has: those of a tenant, or with the same API key."""
        return self.tenant if self.tenant is not None else ("key", self.key_id)

    def as_tenant(self, named: str | None) -> Caller:
        """The same caller for the tenant that the request's body *named* (None: it named none).

        Raises ProblemError (403) for another tenant than the caller's own.
        """
        if named is None or named == self.tenant:
            return self
        if self.key is not None or self.tenant is not None:
            raise ProblemError(_foreign_tenant(named, self))
        return Caller(tenant=named)


_NOBODY = Caller()


class Access:
    """Lets callers in. *options* say whether API keys are asked for; they lie in *store*.

    guard() wraps the whole application, so that no route is open by oversight; a route then gets its caller from
    admit(), and takes a place() for each prediction.
    """

    def __init__(self, store: BlobStore, options: GatewaySettings) -> None:
        self.needs_keys = options.needs_keys
        self._keyring = Keyring(store)
        self._quotas = Quotas(store)
        self._hosts = KnownHosts(options.host, options.public_url, options.cors_origins)
        self._good_hosts: set[bytes] = set()
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._store_is_down = False

    async def close(self) -> None:
        """Stop reading keys."""
        await end((self._watcher, self._reading))
        self._watcher = self._reading = None

    def guard(self, app: ASGIApp) -> ASGIApp:
        """*app* for those alone who may ask; health is open to all."""

        async def keyed(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.admit(scope)
            except ProblemError as error:
                await _refuse(scope, send, error)
            else:
                await app(scope, receive, send)

        # No coroutine of its own where nothing has to be waited for: each frame between costs every request.
        def guarded(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            if scope["type"] != "http" or _is_open(scope):
                return app(scope, receive, send)
            if self.needs_keys:
                return keyed(scope, receive, send)
            try:
                scope[CALLER] = self._trusted(scope)
            except ProblemError as error:
                return _refuse(scope, send, error)
            return app(scope, receive, send)

        return guarded

    async def admit(self, scope: Scope) -> Caller:
        """Who sends the request of *scope*. A second call for the same request gives the same caller for nothing.

        Raises ProblemError: 401 without a valid key, 403 for another tenant than the key's or for a foreign web page,
        421 for a host name that is not ours, 429 (``rate-limited``), 503 while the keys cannot be read.
        """
        caller: Caller | None = scope.get(CALLER)
        if caller is None:
            caller = await self._keyed(scope) if self.needs_keys else self._trusted(scope)
            scope[CALLER] = caller
        return caller

    def charge(self, caller: Caller, count: int) -> None:
        """Take the *count* predictions that one request asks for off the rate of the caller's key; it paid for one.

        Raises ProblemError: 400 (``call-too-large``) when the key may never have so many at once, 429 as admit().
        """
        key = caller.key
        if key is None or count == 1:
            return
        burst = None if key.rate is None else key.burst or max(key.rate, 1.0)
        most = min((limit for limit in (burst, key.in_flight) if limit is not None), default=math.inf)
        if count > most:
            detail = f"{count} predictions in one call are more than the API key {key.id} may ask at once, {most:g}"
            raise ProblemError(Problem(status=400, code="call-too-large", detail=detail))
        if key.rate is not None:
            for _ in range(count - 1):
                self._quotas.charge(key, "POST")

    async def place(self, caller: Caller, *, once: tuple[str, str] | None = None) -> Place:
        """A place for one prediction: ``with await access.place(caller) as place: ...`` holds it, and longer after
        ``place.remember(id_)``, for a prediction that was accepted and whose result nobody waits for here. Those
        *once* for one model and idempotency key share a place.

        Raises ProblemError (429 ``quota-exceeded``).
        """
        if caller.key is None or caller.key.in_flight is None:
            return NO_QUOTA
        return await self._quotas.occupy(caller.key, once=once)

    async def has_keys(self) -> bool:
        """Whether there is a key that has not expired. Raises BlobError when nobody can tell."""
        await self._keyring.load()
        now = time.time()
        return any(is_usable(key, now=now) for key in self._keyring.keys.values())

    # --- without keys ---

    def _trusted(self, scope: Scope) -> Caller:
        host = origin = b""
        tenants: tuple[bytes, ...] = ()
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"dumbwaiter-tenant":
                tenants = (*tenants, value)
        if host not in self._good_hosts:
            self._check_host(host)
        if origin and not self._hosts.may_call(origin.decode("latin-1"), host.decode("latin-1")):
            detail = f"pages of {origin.decode('latin-1')[:200]} may not call this gateway; see gateway.cors_origins"
            raise ProblemError(Problem(status=403, code="foreign-origin", detail=detail))
        return Caller(tenant=_tenant_of(tenants)) if tenants else _NOBODY

    def _check_host(self, host: bytes) -> None:
        # Whoever sends no Host is no browser.
        if host and not self._hosts.is_ours(host.decode("latin-1")):
            name = host.decode("latin-1")[:200]
            detail = f"this gateway is not known as {name!r}; use its address, or set gateway.public_url"
            raise ProblemError(Problem(status=421, code="unknown-host", detail=detail))
        if len(self._good_hosts) < MOST_HOSTS:
            self._good_hosts.add(host)

    # --- with keys ---

    async def _keyed(self, scope: Scope) -> Caller:
        token, tenant = _credentials(scope)
        if token is None:
            raise _unauthorized("no-api-key", "this gateway needs an API key; send Authorization: Bearer dw_...")
        if self._watcher is None or self._watcher.done() or time.monotonic() - self._read_at > TRUSTED_FOR:
            await self._be_fresh()
        key = await self._key_of(token)
        caller = Caller(tenant=key.tenant, key=key)
        if tenant is not None:
            caller = caller.as_tenant(tenant)
        if key.rate is not None:
            self._quotas.charge(key, scope["method"], scope["path"])
        return caller

    async def _key_of(self, token: str) -> ApiKey:
        parts = read_token(token)
        key_id, secret = parts or ("", "")
        key = self._keyring.keys.get(key_id)
        if parts is not None and key is None:
            await self._read_again()
            key = self._keyring.keys.get(key_id)
        if not has_secret(key, secret) or key is None:
            raise _unauthorized("unknown-api-key", "this API key is not valid, or was revoked")
        if not is_usable(key, now=time.time()):
            raise _unauthorized("expired-api-key", f"the API key {key.id} has expired; ask for a new one")
        return key

    async def _be_fresh(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        await self._read_again()
        if self._read_at == float("-inf"):
            detail = "the API keys cannot be read now: ask again"
            raise ProblemError(Problem(status=503, code="keys-unavailable", detail=detail, retry_after=RETRY_SOON))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY)
            await self._read_again()

    async def _read_again(self) -> None:
        """Read the keys, unless that was tried just now. All who want it at once share one look."""
        if self._reading is None or self._reading.done():
            if time.monotonic() - self._tried_at < READ_AGAIN_AFTER:
                return
            self._tried_at = time.monotonic()
            self._reading = asyncio.get_running_loop().create_task(self._read())
        # A store that hangs holds nobody up for longer than that, and later ones not at all.
        left = self._tried_at + READ_WITHIN - time.monotonic()
        if left > 0.0:
            await asyncio.wait({self._reading}, timeout=left)

    async def _read(self) -> None:
        began = time.monotonic()
        try:
            await self._keyring.load()
        except BlobError as error:
            if not self._store_is_down:
                _log.warning("cannot read the API keys; those last known stay valid: %s", error)
            self._store_is_down = True
            return
        self._store_is_down = False
        self._read_at = began
        self._quotas.keep_only(self._keyring.keys)


async def _refuse(scope: Scope, send: Send, error: ProblemError) -> None:
    await send_whole(send, error.problem.status, *encode(error.problem, close=has_body(scope)))


def _is_open(scope: Scope) -> bool:
    """Whether everybody may come to the route of *scope*, with a key or not."""
    path: str = scope["path"]
    return path.startswith(_OPEN_BELOW) or path in _OPEN or (scope["method"], path) in _ASKING_THEMSELVES


def _credentials(scope: Scope) -> tuple[str | None, str | None]:
    """The API key in the head of a request and the tenant that it names; None for what is not there.

    Raises ProblemError (400) for two that are not the same.
    """
    tokens: list[str] = []
    tenants: tuple[bytes, ...] = ()
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").partition(" ")
            if scheme.lower() in ("bearer", "token"):
                tokens.append(rest.strip())
        elif name == b"x-api-key":
            tokens.append(value.decode("latin-1").strip())
        elif name == b"dumbwaiter-tenant":
            tenants = (*tenants, value)
    tokens = [token for token in tokens if token]
    check_said_once(tokens, "the API key", "api-key")
    return tokens[0] if tokens else None, _tenant_of(tenants) if tenants else None


def _tenant_of(headers: Sequence[bytes]) -> str:
    names = [header.decode("latin-1").strip() for header in headers]
    check_said_once(names, "Dumbwaiter-Tenant", "tenant")
    name = names[0]
    if not is_tenant_name(name):
        detail = f"Dumbwaiter-Tenant must have 1 to {LONGEST_TENANT} printable characters"
        raise ProblemError(Problem(status=400, code="invalid-tenant", detail=detail))
    return name


def _foreign_tenant(named: str, caller: Caller) -> Problem:
    own = "of no tenant" if caller.tenant is None else f"of the tenant {caller.tenant!r}"
    whose = "its header Dumbwaiter-Tenant is" if caller.key is None else f"its API key {caller.key.id} is"
    detail = f"the request names the tenant {named!r}, and {whose} {own}; leave the one in the request out"
    return Problem(status=403, code="foreign-tenant", detail=detail)


def _unauthorized(code: str, detail: str) -> ProblemError:
    # RFC 6750, 3: the reason stands in the challenge only when there was a key at all.
    challenge = _CHALLENGE if code == "no-api-key" else f'{_CHALLENGE}, error="invalid_token"'
    return ProblemError(Problem(status=401, code=code, detail=detail, headers={"WWW-Authenticate": challenge}))
