"""Self-made certificates for 127.0.0.1, by the system's openssl."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess

import pytest


def make_certificate(folder, name="own", *, passphrase=None):
    """Paths of a certificate and its key."""
    if shutil.which("openssl") is None:
        if os.environ.get("TESTS_REQUIRE_ALL"):
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    certfile, keyfile = folder / f"{name}.crt", folder / f"{name}.key"
    secrecy = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    subprocess.run(
        [*command, *secrecy, *subject, "-keyout", str(keyfile), "-out", str(certfile)], check=True, capture_output=True
    )
    return certfile, keyfile


def trusting(certfile):
    """The TLS of a client that trusts *certfile* alone."""
    context = ssl.create_default_context(cafile=str(certfile))
    context.check_hostname = True
    return context
