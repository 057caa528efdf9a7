"""A gateway's configuration from settings by their field names, whichever section each belongs to."""

from __future__ import annotations

from typing import Any

from neurogate.config import sections
from neurogate.gateway.settings import GatewayConfig


def gateway_config(**settings: Any) -> GatewayConfig:
    """Raises TypeError for a name that no section has. The health-only port is off unless asked for."""
    left = {"health_port": -1, **settings}
    made = {
        name: section(**{field: left.pop(field) for field in section.__struct_fields__ if field in left})
        for name, section in sections(GatewayConfig).items()
    }
    if left:
        raise TypeError(f"no section of the gateway's configuration has {', '.join(left)}")
    return GatewayConfig(**made)
