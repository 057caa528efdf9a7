"""Settings of the link's TLS, the same names for both of its ends."""

from __future__ import annotations

from typing import Annotated

import msgspec

from neurogate.config import env
from neurogate.tls.material import PemFile, TlsFiles


class LinkTlsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What gateway and worker show each other."""

    cert: Annotated[
        str,
        env("NEUROGATE_LINK_TLS_CERT", "Certificate chain (PEM) that this process shows on the link; empty is none."),
    ] = ""
    key: Annotated[
        str, env("NEUROGATE_LINK_TLS_KEY", "Private key (PEM) of that certificate, without a password.", secret=False)
    ] = ""
    ca: Annotated[
        str,
        env(
            "NEUROGATE_LINK_TLS_CA",
            "CA certificates (PEM) that must have signed the other end's; with them a gateway's links are TLS.",
        ),
    ] = ""
    name: Annotated[
        str,
        env("NEUROGATE_LINK_TLS_NAME", "Name that gateways expect in every worker's certificate, not its address."),
    ] = ""


def link_files(settings: LinkTlsSettings) -> TlsFiles:
    """The files that the settings name."""
    return TlsFiles(
        PemFile("NEUROGATE_LINK_TLS_CERT", settings.cert),
        PemFile("NEUROGATE_LINK_TLS_KEY", settings.key),
        PemFile("NEUROGATE_LINK_TLS_CA", settings.ca),
    )
