"""The scaler's certificate: read from its files, and read again when they have changed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from dumbwaiter.config import ScalerSettings
from dumbwaiter.errors import ConfigError

RENEW_EVERY = 10.0
"""Seconds between two looks at the files."""
_log = logging.getLogger("dumbwaiter.scaler")


class Certificate:
    """Certificate chain and private key. *context* is for HTTP, *key_and_chain* (PEM) for gRPC.

    Raises ConfigError, naming the setting, when one of *certfile* and *keyfile* cannot be used.
    """

    def __init__(self, certfile: str, keyfile: str) -> None:
        self._certfile, self._keyfile = certfile, keyfile
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.key_and_chain = self._load()
        self.context.load_cert_chain(certfile, keyfile)

    async def renew(self) -> None:
        """Take the files again if they have changed; while they cannot be used, the certificate in use stays."""
        try:
            loaded = self._load()
            if loaded == self.key_and_chain:
                return
            self.context.load_cert_chain(self._certfile, self._keyfile)
        except (ConfigError, OSError) as error:
            _log.warning("the scaler's certificate cannot be used, so the former one stays: %s", error)
        else:
            self.key_and_chain = loaded
            _log.info("the certificate was renewed from %s", self._certfile)

    def _load(self) -> tuple[bytes, bytes]:
        read = {}
        for name, path in (("keyfile", self._keyfile), ("certfile", self._certfile)):
            try:
                read[name] = Path(path).read_bytes()
            except OSError as error:
                raise ConfigError(f"scaler.{name}: cannot read {path}: {error.strerror}") from None
        try:
            # In a context of its own: one that fails half-way would show a certificate without its key.
            trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trial.load_cert_chain(self._certfile, self._keyfile, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            files = f"{self._certfile} and {self._keyfile} are no certificate and its private key, in PEM"
            raise ConfigError(f"scaler.certfile: {files}: {getattr(error, 'reason', None) or error}") from None
        return read["keyfile"], read["certfile"]


def _no_password() -> str:
    raise ValueError("the key has a password, and a server that starts by itself cannot ask for one")


def certificate_of(options: ScalerSettings) -> Certificate | None:
    """The certificate that *options* name, or None. Raises ConfigError where they name half of one."""
    if options.certfile is None and options.keyfile is None:
        return None
    if options.certfile is None or options.keyfile is None:
        missing = "certfile" if options.certfile is None else "keyfile"
        raise ConfigError(f"TLS takes a certificate and its private key: scaler.{missing} is not set")
    return Certificate(options.certfile, options.keyfile)
