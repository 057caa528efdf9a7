"""What the log says of the store of limits."""

from __future__ import annotations

from typing import Literal

import pytest
from structlog.testing import capture_logs

from neurogate.gateway.limit_log import LimitLog
from neurogate.gateway.metrics import GatewayMetrics


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        ("open", "redis is down: limits are not shared, each gateway counts by itself"),
        ("closed", "redis is down: requests of keys with limits get 503"),
    ],
)
def test_a_store_that_is_down_is_told_with_what_happens_to_requests(fail: Literal["open", "closed"], told: str) -> None:
    log = LimitLog(GatewayMetrics(), fail=fail)

    with capture_logs() as logs:
        log.store_down("redis://h", "Connection refused")

    assert logs == [{"event": told, "redis": "redis://h", "error": "Connection refused", "log_level": "warning"}]
