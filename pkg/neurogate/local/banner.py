"""What there is to know of a fleet that starts: where it is reached, and what it asks for."""

from __future__ import annotations

from collections.abc import Iterator

from neurogate.edge.key_source import enforces
from neurogate.edge.keyfile import HASHED
from neurogate.edge.settings import KeySettings, TlsSettings
from neurogate.local.prepare import Prepared


def banner(prepared: Prepared) -> Iterator[str]:
    """One line for each fact."""
    plan, gateway = prepared.plan, prepared.gateway
    facts = [
        ("gateway", plan.url),
        ("https", plan.https_url),
        ("grpc", plan.grpc_address),
        ("grpc tls", plan.grpc_tls_address),
        ("tls", _tls(gateway.tls)),
        ("metrics", f"{plan.gateway.ops_url}/metrics"),
        ("engine", f"{prepared.engine} {prepared.model}"),
        ("key", key(gateway.keys)),
        ("logs", str(prepared.directory)),
    ]
    return (f"{name:<8} {fact}" for name, fact in facts if fact)


def key(settings: KeySettings) -> str:
    """A key that may be used, or where one is found. Those in a file are not shown."""
    if not enforces(settings):
        return "(none: whoever reaches the gateway may ask)"
    plain = next((each for each in settings.api_keys if not each.startswith(HASHED)), "")
    if plain:
        return f"{plain} (or one of those in {settings.keys_file})" if settings.keys_file else plain
    sources = ["API_KEYS, which holds digests only"] if settings.api_keys else []
    sources += [settings.keys_file] if settings.keys_file else []
    if not sources:
        return "(none is known, so nobody may ask: set API_KEYS or AUTH_KEYS_FILE)"
    return f"(one of those in {'; or in '.join(sources)})"


def _tls(settings: TlsSettings) -> str:
    if not settings.cert:
        return ""
    mutual = f"; clients must show one that {settings.client_ca} has signed" if settings.client_ca else ""
    return f"certificate {settings.cert}{mutual}"
