"""What the admin API does not take, because nobody can have meant it."""

from __future__ import annotations

import pytest

from fleet_in_process import fleet
from neurogate.config import MASK
from real_loop import run_real

ADMIN = "an-admin-key-of-ours"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}


@pytest.mark.parametrize("keys", [[MASK], ["another-key-of-a-client", MASK], MASK])
def test_the_mask_of_a_key_does_not_become_a_key(keys: object) -> None:
    """GET, edit, PUT: whoever does that gives back what stands for the keys."""

    async def main() -> None:
        async with fleet(1, admin_key=(ADMIN,)) as made:
            answer = await made.client.put("/admin/config", json={"keys.api_keys": keys}, headers=AS_ADMIN)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_config")
            assert answer.json()["message"].startswith(f"keys.api_keys: {MASK} stands for a secret")
            as_mask = await made.client.get("/v1/models", headers={"Authorization": f"Bearer {MASK}"})
            assert as_mask.status_code == 401
            assert (await made.client.get("/v1/models")).status_code == 200

    run_real(main())


@pytest.mark.parametrize("address", ["http://box:50051", "dns:///box:50051", "box/path:1", "me@box:1", "a b:1"])
def test_a_worker_is_added_by_host_and_port_alone(address: str) -> None:
    async def main() -> None:
        async with fleet(1, admin_key=(ADMIN,)) as made:
            answer = await made.client.post("/admin/workers", json={"address": address}, headers=AS_ADMIN)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
            assert "is not host:port" in answer.json()["message"]
            assert len(made.gateway.resolver.endpoints) == 1

    run_real(main())
