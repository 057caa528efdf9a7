"""The admin API over HTTP: who may use it, what it changes, and what it answers."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fleet_in_process import KEY, Fleet, fleet
from neurogate.engines.settings import SimSettings
from real_loop import eventually, run_real

ADMIN = "an-admin-key-of-ours"
AS_ADMIN = {"Authorization": f"Bearer {ADMIN}"}
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "seed": 1, "max_tokens": 8}
SLOW = SimSettings(prefill_tps=0, decode_tps=100, slots=64)
EVERY_CALL = [
    ("GET", "/admin/config"),
    ("PUT", "/admin/config"),
    ("POST", "/admin/workers"),
    ("DELETE", "/admin/workers/worker-0"),
    ("POST", "/admin/workers/worker-0/drain"),
    ("POST", "/admin/workers/worker-0/resume"),
    ("POST", "/admin/breakers/worker-0/reset"),
    ("POST", "/admin/drain"),
    ("POST", "/admin/undrain"),
    ("POST", "/admin/reload"),
    ("POST", "/reload"),
]


def with_fleet(test: Callable[[Fleet], Coroutine[Any, Any, None]], workers: int = 1, **settings: Any) -> None:
    async def main() -> None:
        async with fleet(workers, **{"admin_key": (ADMIN,), **settings}) as made:
            await test(made)

    run_real(main())


async def admin(made: Fleet, method: str, path: str, body: Any = None) -> httpx.Response:
    return await made.client.request(method, path, json=body, headers=AS_ADMIN)


async def change(made: Fleet, **values: Any) -> httpx.Response:
    """PUT /admin/config; `gateway__retries` stands for gateway.retries."""
    return await admin(made, "PUT", "/admin/config", {key.replace("__", "."): value for key, value in values.items()})


def member(made: Fleet, name: str = "worker-0") -> Any:
    return next(member for member in made.gateway.pool.snapshot.members if member.id == name)


def test_without_an_admin_key_the_api_is_off_and_says_how_to_turn_it_on() -> None:
    async def test(made: Fleet) -> None:
        for method, path in EVERY_CALL:
            answer = await admin(made, method, path)
            assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed"), path
            assert "NEUROGATE_ADMIN_KEY" in answer.json()["message"]

    with_fleet(test, admin_key=())


@pytest.mark.parametrize("authorization", ["", f"Bearer {KEY}", ADMIN, f"Basic {ADMIN}", "Bearer", f"Bearer {ADMIN}x"])
def test_nothing_but_an_admin_key_opens_it(authorization: str) -> None:
    async def test(made: Fleet) -> None:
        for method, path in EVERY_CALL:
            with capture_logs() as logs:
                answer = await made.client.request(method, path, headers={"Authorization": authorization})
            assert answer.status_code == 401, path
            assert set(answer.json()) >= {"error", "code", "message"}
            said = [log["event"] for log in logs if log["event"] != "gateway linked"]  # the worker's, whenever it comes
            assert said == ["admin call without the right key"]
        assert not member(made).cordoned

    with_fleet(test)


def test_an_admin_key_is_no_key_for_prompts() -> None:
    async def test(made: Fleet) -> None:
        assert (await made.client.post(CHAT, json=ASKED, headers=AS_ADMIN)).status_code == 401

    with_fleet(test)


def test_a_key_may_be_given_as_its_digest_and_is_named_in_the_log() -> None:
    digest = hashlib.sha256(ADMIN.encode()).hexdigest()

    async def test(made: Fleet) -> None:
        with capture_logs() as logs:
            assert (await admin(made, "POST", "/admin/workers/worker-0/drain")).status_code == 200
        assert {log["key"] for log in logs if log["event"] in {"admin call", "worker cordoned"}} == {"alice"}

    with_fleet(test, admin_key=(f"alice:sha256${digest}",))


def test_the_configuration_is_shown_with_sources_and_without_secrets() -> None:
    async def test(made: Fleet) -> None:
        await change(made, gateway__retries=1)
        answer = await admin(made, "GET", "/admin/config")
        shown = answer.json()
        assert shown["settings"]["gateway.retries"] == {"value": 1, "source": "admin API", "reloads": True}
        assert shown["settings"]["gateway.http_port"]["reloads"] is False
        assert shown["settings"]["keys.api_keys"]["value"] == ["********"]
        assert (shown["status"], shown["error"], shown["needs_restart"]) == ("ok", "", [])
        assert answer.headers["cache-control"] == "no-store"
        assert KEY not in answer.text
        assert ADMIN not in answer.text

    with_fleet(test)


def test_a_value_is_in_force_at_once_and_can_be_taken_away_again() -> None:
    async def test(made: Fleet) -> None:
        answer = await change(made, limits__requests_per_minute=1)
        assert answer.json() == {"status": "ok", "changed": ["limits.requests_per_minute"], "needs_restart": []}
        statuses = [(await made.client.post(CHAT, json=ASKED)).status_code for _ in range(2)]
        assert statuses == [200, 429]
        assert (await change(made, limits__requests_per_minute=None)).json()["changed"] == [
            "limits.requests_per_minute"
        ]
        assert (await made.client.post(CHAT, json=ASKED)).status_code == 200

    with_fleet(test)


def test_bounds_of_endpoints_follow() -> None:
    async def test(made: Fleet) -> None:
        big = {**ASKED, "user": "x" * 4000}
        assert (await made.client.post(CHAT, json=big)).status_code == 200
        await change(made, gateway__max_body_bytes=2048)
        assert (await made.client.post(CHAT, json=big)).status_code == 413
        await change(made, gateway__max_body_bytes=8192, gateway__max_bodies_bytes=1024)
        assert (await made.client.post(CHAT, json=big)).status_code == 503

    with_fleet(test)


def test_everything_that_says_it_reloads_can_be_set() -> None:
    async def test(made: Fleet) -> None:
        shown = (await admin(made, "GET", "/admin/config")).json()["settings"]
        secret = {"keys.api_keys", "admin.admin_key"}
        values = {key: given["value"] for key, given in shown.items() if given["reloads"] and key not in secret}
        answer = await admin(made, "PUT", "/admin/config", values)
        assert answer.json() == {"status": "ok", "changed": [], "needs_restart": []}
        other = {key: value * 2 if value > 0 else 7 for key, value in values.items() if type(value) in {int, float}}
        other["gateway.retries"] = 4
        other["gateway.retry_budget"] = 0.4
        other["resilience.hedge_share"] = 0.01
        other["tracing.ratio"] = 0.5
        answer = await admin(made, "PUT", "/admin/config", other)
        assert set(answer.json()["changed"]) == set(other)
        assert (await admin(made, "PUT", "/admin/config", dict.fromkeys(other))).status_code == 200
        assert made.gateway.reloader.config.gateway.retries == 2

    with_fleet(test)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"gateway.retries": 1, "gateway.balancer": "best"}, "gateway.balancer: must be one of"),
        ({"gateway.retries": 1, "gateway.retrise": 1}, "gateway.retrise: there is no such setting (did you mean"),
        ({"gateway.retries": 1, "gateway.http_port": 70000}, "gateway.http_port: "),
        ({"gateway.retries": 1, "gateway.worker_addresses": ["nonsense"]}, "'nonsense' is not host:port"),
        ({"gateway.retries": 1, "admin.admin_key": ["x" * 20]}, "admin.admin_key: cannot be changed by the admin API"),
        ({"gateway.retries": 1, "persist": True}, "persist: there is no such setting"),
        ({"gateway.retries": 1, "gateway.failfast_s": "inf"}, "must be a finite number"),
        ({"gateway.retries": 1, "keys.auth_enabled": False}, "a reload never turns authentication off"),
    ],
)
def test_values_are_taken_together_or_not_at_all(body: dict[str, Any], told: str) -> None:
    async def test(made: Fleet) -> None:
        answer = await admin(made, "PUT", "/admin/config", body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_config")
        assert told in answer.json()["message"]
        assert made.gateway.reloader.config.gateway.retries == 2
        assert made.gateway.reloader.status()["status"] == "ok"

    with_fleet(test)


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b"", 400, "the body is not what this call takes"),
        (b"[1]", 400, "the body is not what this call takes"),
        (b"{", 400, "the body is not what this call takes"),
        (b"{}", 400, "name what to change"),
        (b" " * 300_000, 413, "larger than the 262144 bytes"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(content: bytes, status: int, told: str) -> None:
    async def test(made: Fleet) -> None:
        answer = await made.client.put("/admin/config", content=content, headers=AS_ADMIN)
        assert answer.status_code == status
        assert told in answer.json()["message"]

    with_fleet(test)


def test_what_needs_a_restart_is_named_and_not_kept() -> None:
    async def test(made: Fleet) -> None:
        answer = await change(made, gateway__retries=1, gateway__http_port=9)
        assert answer.json() == {
            "status": "ok",
            "changed": ["gateway.retries"],
            "needs_restart": ["gateway.http_port"],
        }
        shown = (await admin(made, "GET", "/admin/config")).json()
        assert shown["settings"]["gateway.http_port"] == {"value": 8080, "source": "default", "reloads": False}
        assert shown["needs_restart"] == []
        assert (await change(made, gateway__retries=2)).json()["needs_restart"] == []

    with_fleet(test)


def test_a_worker_is_drained_and_resumed() -> None:
    async def test(made: Fleet) -> None:
        answer = await admin(made, "POST", "/admin/workers/worker-0/drain")
        assert answer.json()["status"] == "ok"
        shown = answer.json()["worker"]
        assert (shown["id"], shown["cordoned"], shown["draining"], shown["ready"]) == ("worker-0", True, True, False)
        asked = [await made.client.post(CHAT, json=ASKED) for _ in range(4)]
        assert {answer.headers["x-neurogate-worker"] for answer in asked} == {"worker-1"}
        assert (await made.client.get("/health")).json()["status"] == "degraded"
        await admin(made, "POST", "/admin/workers/worker-0/resume")
        asked = [await made.client.post(CHAT, json=ASKED) for _ in range(4)]
        assert {answer.headers["x-neurogate-worker"] for answer in asked} == {"worker-0", "worker-1"}

    with_fleet(test, workers=2)


def test_a_worker_is_removed_when_it_has_finished_and_can_be_added_again() -> None:
    async def test(made: Fleet) -> None:
        address = member(made).endpoint.address
        async with made.client.stream("POST", CHAT, json={**ASKED, "max_tokens": 40, "stream": True}) as streamed:
            worker = streamed.headers["x-neurogate-worker"]
            address = member(made, worker).endpoint.address
            answer = await admin(made, "DELETE", f"/admin/workers/{worker}")
            assert answer.json() == {"status": "ok", "id": worker, "address": address, "in_flight": 1}
            await eventually(lambda: len(made.gateway.pool.snapshot.members) == 1)
            listed = (await made.client.get("/workers")).json()["workers"]
            assert [(each["id"], each["draining"]) for each in listed if each["id"] == worker] == [(worker, True)]
            body = b"".join([piece async for piece in streamed.aiter_bytes()])
        assert body.endswith(b"data: [DONE]\n\n")
        await eventually(lambda: not made.gateway.pool.leaving)
        assert (await made.client.get("/workers")).json()["count"] == 1

        added = await admin(made, "POST", "/admin/workers", {"address": address})
        assert (added.status_code, added.json()["address"]) == (200, address)
        await eventually(lambda: len(made.gateway.pool.snapshot.admitting("")) == 2)
        again = await admin(made, "POST", "/admin/workers", {"address": address})
        assert (again.status_code, again.json()["code"]) == (409, "worker_exists")

    with_fleet(test, workers=2, sim=SLOW)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("DELETE", "/admin/workers/worker-9", None, 404, "worker_not_found"),
        ("POST", "/admin/workers/worker-9/drain", None, 404, "worker_not_found"),
        ("POST", "/admin/workers/worker-9/resume", None, 404, "worker_not_found"),
        ("POST", "/admin/breakers/worker-9/reset", None, 404, "worker_not_found"),
        ("POST", "/admin/workers", {"address": "nonsense"}, 400, "invalid_request"),
        ("POST", "/admin/workers", {"adress": "a:1"}, 400, "invalid_request"),
        ("POST", "/admin/workers", None, 400, "invalid_request"),
        ("GET", "/admin/nothing", None, 404, "not_found"),
        ("GET", "/admin/reload", None, 405, "method_not_allowed"),
        ("POST", "/admin/config", None, 405, "method_not_allowed"),
    ],
)
def test_refusals_are_plain(method: str, path: str, body: Any, status: int, code: str) -> None:
    async def test(made: Fleet) -> None:
        answer = await admin(made, method, path, body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert set(answer.json()) >= {"error", "code", "message"}

    with_fleet(test)


def test_all_methods_of_a_path_are_told_whichever_route_has_them() -> None:
    async def test(made: Fleet) -> None:
        async with httpx.AsyncClient(base_url=made.url) as anybody:
            asked = await anybody.options("/admin/config")
            assert (asked.status_code, asked.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")
            assert (await anybody.post("/admin/config")).headers["allow"] == "GET, HEAD, PUT"

    with_fleet(test)


def test_a_breaker_is_reset() -> None:
    async def test(made: Fleet) -> None:
        for _ in range(3):
            member(made).breaker.record_failure()
        answer = await admin(made, "POST", "/admin/breakers/worker-0/reset")
        assert answer.json()["worker"]["circuit_breaker_state"] == "closed"
        assert member(made).breaker.state == "closed"

    with_fleet(test)


@pytest.mark.parametrize("path", ["/reload", "/admin/reload"])
def test_a_reload_says_what_it_changed_and_how_many_keys_there_are(path: str, tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}\n")

    async def test(made: Fleet) -> None:
        file.write_text("gateway: {retries: 0, http_port: 1}\nkeys:\n  api_keys: [a-secret-key, another-key]\n")
        answer = await admin(made, "POST", path)
        assert answer.json() == {
            "status": "ok",
            "changed": ["gateway.retries", "keys.api_keys"],
            "needs_restart": ["gateway.http_port"],
            "keys_loaded": 2,
        }
        asked = await made.client.post(CHAT, json=ASKED, headers={"Authorization": "Bearer another-key"})
        assert asked.status_code == 200
        shown = (await admin(made, "GET", "/admin/config")).json()
        assert shown["needs_restart"] == ["gateway.http_port"]
        assert shown["settings"]["gateway.retries"]["source"] == "n.yaml:1"

    with_fleet(test, config_file=file)


@pytest.mark.parametrize(
    "torn", ["", "gateway:\n  retr", "gateway: {retries: 1", "gateway:\n  retries: -1\n", "x: {}\n"]
)
def test_a_torn_or_wrong_file_keeps_what_was_and_says_so_until_it_is_mended(torn: str, tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}\n")

    async def test(made: Fleet) -> None:
        def counted(result: str) -> float | None:
            name = "neurogate_gateway_config_reloads_total"
            return made.gateway.metrics.registry.get_sample_value(name, {"result": result})

        file.write_text(torn)
        with capture_logs() as logs:
            answer = await admin(made, "POST", "/reload")
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_config")
        assert [log["event"] for log in logs if log["log_level"] == "error"] == [
            "configuration not reloaded: the one before stays"
        ]
        told = (await made.client.get("/health")).json()["config"]
        assert (told["status"], told["error"]) == ("invalid", answer.json()["message"])
        assert told["loaded_at"] == "1970-01-01T00:00:00+00:00"
        assert made.gateway.reloader.config.gateway.retries == 1
        assert (counted("invalid"), counted("ok")) == (1, 0)
        assert (await made.client.post(CHAT, json=ASKED)).status_code == 200

        file.write_text("gateway: {retries: 3}\n")
        assert (await admin(made, "POST", "/reload")).json()["changed"] == ["gateway.retries"]
        assert (await made.client.get("/health")).json()["config"]["status"] == "ok"
        assert counted("ok") == 1

    with_fleet(test, config_file=file)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    made = tmp_path / "api_keys.txt"
    made.write_text("alice:sk-alice-xyz789\n")
    made.chmod(0o600)
    return made


def overwrite(file: Path, content: bytes) -> None:
    file.write_bytes(content)


async def may_call(made: Fleet, key: str) -> bool:
    answer = await made.client.post(CHAT, json=ASKED, headers={"Authorization": f"Bearer {key}"})
    return answer.status_code == 200


def reloads(made: Fleet) -> tuple[float, float]:
    """How many were ok, and how many invalid."""
    registry = made.gateway.metrics.registry
    name = "neurogate_gateway_config_reloads_total"
    ok, invalid = (registry.get_sample_value(name, {"result": result}) or 0 for result in ("ok", "invalid"))
    return ok, invalid


@pytest.mark.parametrize("path", ["/reload", "/admin/reload"])
def test_a_broken_key_file_is_told_wherever_a_broken_configuration_is(
    path: str, key_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}\n")

    async def test(made: Fleet) -> None:
        file.write_text("gateway: {retries: 3}\n")
        overwrite(key_file, b"\x00\xff garbage")
        error = f"AUTH_KEYS_FILE: {key_file} is not UTF-8 text; the keys of before stay"
        with capture_logs() as logs:
            answer = await admin(made, "POST", path)
        assert (answer.status_code, answer.json()) == (
            400,
            {
                "status": "invalid",
                "error": error,
                "code": "invalid_config",
                "message": error,
                "changed": ["gateway.retries"],
                "needs_restart": [],
                "keys_loaded": 2,
            },
        )
        assert [log["reason"] for log in logs if log["log_level"] == "error"] == [error]
        assert reloads(made) == (0, 1)
        for told in (
            (await made.client.get("/health")).json()["config"],
            (await admin(made, "GET", "/admin/config")).json(),
        ):
            assert (told["status"], told["error"]) == ("invalid", error)
        assert await may_call(made, "sk-alice-xyz789")

        overwrite(key_file, b"bob:sk-prod-abc123\n")
        answer = await admin(made, "POST", path)
        assert (answer.status_code, answer.json()["status"], answer.json()["keys_loaded"]) == (200, "ok", 2)
        assert (await made.client.get("/health")).json()["config"]["status"] == "ok"
        assert reloads(made) == (1, 1)
        assert [await may_call(made, key) for key in ("sk-alice-xyz789", "sk-prod-abc123")] == [False, True]

    with_fleet(test, config_file=file, keys_file=str(key_file))


def test_keys_are_read_again_beside_a_configuration_that_is_wrong(key_file: Path, tmp_path: Path) -> None:
    """A key that was taken out of its file is out, whatever else is wrong."""
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}\n")

    async def test(made: Fleet) -> None:
        file.write_text("gateway: {retries: -1}\n")
        overwrite(key_file, b"bob:sk-prod-abc123\n")
        assert (await admin(made, "POST", "/reload")).status_code == 400
        assert [await may_call(made, key) for key in ("sk-alice-xyz789", "sk-prod-abc123")] == [False, True]
        assert reloads(made) == (0, 1)

    with_fleet(test, config_file=file, keys_file=str(key_file))


def test_a_file_of_keys_that_has_none_is_not_taken(key_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 1}\n")
    comments, missing = tmp_path / "comments", tmp_path / "missing"
    comments.write_text("# none\n")

    async def test(made: Fleet) -> None:
        for wrong, told in (
            ("/etc/passwd", "/etc/passwd has no valid key"),
            (str(missing), "cannot be read"),
            (str(comments), "has no key"),
        ):
            answer = await change(made, keys__keys_file=wrong, gateway__retries=0)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_config")
            assert answer.json()["message"].startswith("AUTH_KEYS_FILE: ")
            assert told in answer.json()["message"]
            file.write_text(f"gateway: {{retries: 0}}\nkeys: {{keys_file: {wrong}}}\n")
            answer = await admin(made, "POST", "/reload")
            assert (answer.status_code, told in answer.json()["message"]) == (400, True)
            assert (await made.client.get("/health")).json()["config"]["status"] == "invalid"
            file.write_text("gateway: {retries: 1}\n")
            assert (await admin(made, "POST", "/reload")).json()["changed"] == []
            config = made.gateway.reloader.config
            assert (config.gateway.retries, config.keys.keys_file) == (1, str(key_file))
            assert await may_call(made, "sk-alice-xyz789")
        missing.write_text("bob:sk-prod-abc123\n")
        assert (await change(made, keys__keys_file=str(missing))).json()["changed"] == ["keys.keys_file"]
        assert [await may_call(made, key) for key in ("sk-alice-xyz789", "sk-prod-abc123")] == [False, True]

    with_fleet(test, config_file=file, keys_file=str(key_file))


def test_changes_under_load_lose_nothing(tmp_path: Path) -> None:
    """Streams and whole answers go on while workers, keys, limits, bounds and policy change under them."""
    file = tmp_path / "n.yaml"
    file.write_text("gateway: {retries: 2}\n")

    async def ask(made: Fleet, index: int) -> tuple[int, bool]:
        body = {**ASKED, "max_tokens": 4 + index % 20, "stream": bool(index % 3)}
        answer = await made.client.post(CHAT, json=body)
        whole = answer.content.endswith(b"data: [DONE]\n\n") if body["stream"] else "usage" in answer.json()
        return answer.status_code, whole

    async def keep_asking(made: Fleet, changing: asyncio.Task[None]) -> list[tuple[int, bool]]:
        answers = []
        while not changing.done():
            answers.append(await ask(made, len(answers)))
        return answers

    async def churn(made: Fleet, addresses: list[str]) -> None:
        rng = random.Random(7)
        for number in range(25):
            listed = rng.sample(addresses, rng.choice((1, 2, 3)))
            file.write_text(
                f"gateway: {{worker_addresses: {listed}, balancer: {rng.choice(('round_robin', 'least_requests'))}, "
                f"retries: {rng.randrange(3)}, stream_buffer_bytes: {rng.choice((65536, 1048576))}}}\n"
                f"keys: {{api_keys: [{KEY}, {'x' * 20}{number}]}}\n"
                f"limits: {{requests_per_minute: {rng.choice((0, 100_000))}, concurrent_per_key: 1000}}\n"
            )
            assert (await admin(made, "POST", "/reload")).status_code == 200
            await asyncio.sleep(0.05)

    async def test(made: Fleet) -> None:
        addresses = [member.endpoint.address for member in made.gateway.pool.snapshot.members]
        async with asyncio.TaskGroup() as tasks:
            changing = tasks.create_task(churn(made, addresses))
            asking = [tasks.create_task(keep_asking(made, changing)) for _ in range(20)]
        answers = [answer for task in asking for answer in task.result()]
        assert len(answers) > 60
        assert set(answers) == {(200, True)}
        await eventually(lambda: not made.gateway.pool.leaving)

    with_fleet(test, workers=3, sim=SLOW, config_file=file)
