"""What a starting fleet says of itself is true."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from neurogate.edge.settings import KeySettings, TlsSettings
from neurogate.local.banner import banner, key

DIGEST = f"sha256${'0' * 64}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (KeySettings(), "(none: whoever reaches the gateway may ask)"),
        (KeySettings(api_keys=("first", "second")), "first"),
        (KeySettings(api_keys=(DIGEST, "second")), "second"),
        (KeySettings(api_keys=("first",), auth_enabled=False), "(none: whoever reaches the gateway may ask)"),
        (KeySettings(api_keys=(DIGEST,)), "(one of those in API_KEYS, which holds digests only)"),
        (KeySettings(keys_file="keys.txt"), "(one of those in keys.txt)"),
        (KeySettings(keys_file="keys.txt", api_keys=("first",)), "first (or one of those in keys.txt)"),
        (
            KeySettings(keys_file="keys.txt", api_keys=(DIGEST,)),
            "(one of those in API_KEYS, which holds digests only; or in keys.txt)",
        ),
        (
            KeySettings(auth_enabled=True),
            "(none is known, so nobody may ask: set API_KEYS or AUTH_KEYS_FILE)",
        ),
    ],
)
def test_key_is_the_one_that_the_gateway_takes(settings, told):
    assert key(settings) == told


def test_every_address_is_told(prepared):
    lines = list(banner(prepared))

    assert f"gateway  {prepared.plan.url}" in lines
    assert f"grpc     {prepared.plan.grpc_address}" in lines
    assert not [line for line in lines if line.startswith(("https", "tls", "grpc tls"))]


def test_tls_is_told_with_what_clients_must_show(prepared):
    tls = TlsSettings(cert="server.crt", key="server.key", client_ca="ca.crt")
    plan = replace(prepared.plan, https_url="https://h:2", grpc_address="", grpc_tls_address="h:3")
    gateway = msgspec.structs.replace(prepared.gateway, tls=tls)

    lines = list(banner(replace(prepared, plan=plan, gateway=gateway)))

    assert "https    https://h:2" in lines
    assert "grpc tls h:3" in lines
    assert "tls      certificate server.crt; clients must show one that ca.crt has signed" in lines
    assert not [line for line in lines if line.startswith("grpc  ")]


def test_certificate_alone_asks_clients_for_none(prepared):
    gateway = msgspec.structs.replace(prepared.gateway, tls=TlsSettings(cert="server.crt", key="server.key"))

    assert "tls      certificate server.crt" in banner(replace(prepared, gateway=gateway))
