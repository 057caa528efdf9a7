"""Whom the commands of this machine believe: the CAs of the system, or those of a file (`--tls-ca`)."""

from __future__ import annotations

import ssl

from neurogate.errors import NeuroGateError


def trusting(tls_ca: str) -> ssl.SSLContext | bool:
    """What an HTTP client verifies servers by; `tls_ca` is a file of CAs in PEM, empty for those of the system.

    Raises NeuroGateError for a file that cannot be read or holds none.
    """
    try:
        return ssl.create_default_context(cafile=tls_ca) if tls_ca else True
    except OSError as error:  # SSLError among them
        raise NeuroGateError(f"--tls-ca: {tls_ca} cannot be read ({error})") from error


def advice(error: Exception) -> str:
    """What to do about a server that was not believed; empty for any other failure."""
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return "its certificate is not trusted here; name the CA that signed it with --tls-ca"
