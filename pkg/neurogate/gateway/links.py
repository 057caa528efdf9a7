"""How a gateway reaches its workers: one link to each, which says whose it is."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable

from neurogate import __version__
from neurogate.channel import LinkObserver
from neurogate.dataplane.member import LinkChannel
from neurogate.endpoint import Endpoint
from neurogate.gateway.settings import GatewayConfig
from neurogate.rpc.call_channel import Dial
from neurogate.rpc.http2.dialing import Dialer
from neurogate.rpc.link_client import LinkClient, LinkCounts, LinkSettings


def connector(
    config: GatewayConfig,
    dialer: Dialer,
    dial: Dial,
    *,
    loop: asyncio.AbstractEventLoop,
    rng: random.Random,
    counts: LinkCounts,
) -> Callable[[Endpoint, LinkObserver], LinkChannel]:
    """Makes the link to an endpoint. `dial` is for the calls beside it; `counts` are those of all links together."""
    gateway_id = f"{socket.gethostname()}:{os.getpid()}"
    link = LinkSettings(silence_s=config.gateway.link_silence_s)

    def connect(endpoint: Endpoint, observer: LinkObserver) -> LinkChannel:
        return LinkClient(
            endpoint.address,
            observer,
            gateway_id=gateway_id,
            version=__version__,
            settings=link,
            loop=loop,
            rng=rng,
            dialer=dialer,
            dial=dial,
            max_message_bytes=config.grpc.grpc_max_message_bytes,
            counts=counts,
        )

    return connect
