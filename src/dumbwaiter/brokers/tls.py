"""TLS as the URLs of brokers name it: its files are looked at while a URL is read, and the next step after a handshake
that failed.
"""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from dumbwaiter.errors import ConfigError
from dumbwaiter.urls import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CERTIFICATES = "a PEM file with the certificates to trust"
_OWN = ("a PEM file with our own certificate", "a PEM file with its private key, without a passphrase")


def require_tls_files(
    options: Mapping[str, str], url: str, *, trusted: str, own: tuple[str, str] | None = None, or_folder: bool = False
) -> None:
    """Read the files that the *options* of *url* name, so that a wrong one is told before anything is connected.

    *trusted* is the option for the certificates to trust (with *or_folder* also a folder of them), *own* the two for
    our certificate and its key; what is not among *options* is not looked at. Raises ConfigError, naming the option.
    """
    # Clients may take keys that the system's own OpenSSL thinks too short; that is theirs to refuse.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    if (path := options.get(trusted)) is not None:
        with _named(trusted, path, url, _CERTIFICATES):
            if or_folder and Path(path).is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
    both = [(name, options[name], wanted) for name, wanted in zip(own or (), _OWN, strict=False) if name in options]
    for name, path, wanted in both:
        with _named(name, path, url, wanted):
            Path(path).read_bytes()
    if len(both) == len(_OWN):
        (_, certificate, _), (name, key, wanted) = both
        with _named(name, key, url, f"{wanted}, that belongs to the certificate"):
            context.load_cert_chain(certificate, key, password="")  # or it would ask for one at the terminal


@contextlib.contextmanager
def _named(option: str, path: str, url: str, wanted: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        said = "it is none" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read {option}={path!r} of {shown(url)!r}: {said}; name {wanted}") from error


def is_of_tls(said: str) -> bool:
    """Whether what a client library *said* is the system's OpenSSL speaking: some of them keep only its words."""
    return "[SSL" in said


def tls_step(said: str, *, plain: str) -> str:
    """What to do about a handshake that failed as is *said*; *plain* is the scheme without TLS. Begins with ``; ``."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "; name the certificates to trust in ?ca_certs=, or look at the host in the URL"
    return f"; write {plain}:// if it has no TLS, or look what listens there"
