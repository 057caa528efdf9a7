"""Name servers and the Kubernetes API, asked over real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
from dns.asyncresolver import Resolver

from neurogate.discovery.dns import Answer, Record
from neurogate.discovery.kubernetes import Change, VersionGoneError
from neurogate.discovery.resolver import SourceUnavailableError
from neurogate.discovery.settings import DiscoverySettings
from neurogate.discovery.sources import KubernetesSource
from neurogate.errors import ConfigError
from neurogate.lookups import kubernetes_api
from neurogate.lookups.kubernetes_api import KubernetesApi
from neurogate.lookups.name_servers import NameServers
from neurogate.testing.fake_kubernetes import FakeKubernetes
from neurogate.testing.fake_name_server import FakeNameServer
from neurogate.testing.sources import pod, slice_object
from real_loop import eventually, run_real
from tls_support import Pki

SOURCE = KubernetesSource("kubernetes:neurogate/workers", "neurogate", "workers", "")


def names(port: int, **attributes: Any) -> NameServers:
    def configured() -> Resolver:
        resolver = Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], port
        for name, value in attributes.items():
            setattr(resolver, name, value)
        return resolver

    return NameServers(configured)


def test_records_come_with_their_time_to_live():
    async def main() -> None:
        async with FakeNameServer() as server:
            server.put("workers.example.", "A", ["10.0.0.1", "10.0.0.2"], ttl_s=7)
            server.put("workers.example.", "AAAA", ["fd00::1"], ttl_s=8)
            server.put("_grpc._tcp.workers.example.", "SRV", ["0 5 50052 w-0.workers.example."], ttl_s=9)
            ask = names(server.port)
            four = await ask("workers.example", "A")
            assert (sorted(record.host for record in four.records), four.ttl_s) == (["10.0.0.1", "10.0.0.2"], 7)
            assert await ask("workers.example", "AAAA") == Answer((Record("fd00::1"),), 8)
            assert await ask("_grpc._tcp.workers.example", "SRV") == Answer((Record("w-0.workers.example.", 50052),), 9)

    run_real(main())


def test_more_than_fits_into_a_datagram_is_asked_for_by_tcp():
    async def main() -> None:
        async with FakeNameServer() as server:
            hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(500)]
            server.put("workers.example.", "A", hosts)
            answer = await names(server.port)("workers.example", "A")
            assert {record.host for record in answer.records} == set(hosts)
            assert [transport for transport, _, _ in server.asked] == ["udp", "tcp"]

    run_real(main())


def test_no_such_name_and_no_such_record_are_answers_and_a_failure_is_none():
    async def main() -> None:
        async with FakeNameServer() as server:
            ask = names(server.port)
            server.put("workers.example.", "A", ["10.0.0.1"])
            assert (await ask("workers.example", "AAAA")).records == ()
            assert (await ask("nobody.example", "A")).records == ()
            server.failing = True
            with pytest.raises(SourceUnavailableError, match=r"A of workers.example: .*SERVFAIL"):
                await ask("workers.example", "A")

    run_real(main())


def test_a_name_server_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("neurogate.lookups.name_servers.ASK_TIMEOUT_S", 0.2)

    async def main() -> None:
        async with FakeNameServer() as server:
            port = server.port
        with pytest.raises(SourceUnavailableError, match=r"A of workers\.example"):
            await names(port)("workers.example", "A")

    run_real(main())


def test_a_name_server_that_never_answers_is_told_in_the_same_words_however_often_it_was_tried(
    monkeypatch: pytest.MonkeyPatch,
):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]

        async def main() -> None:
            told = []
            for lifetime_s in (0.1, 0.35):
                monkeypatch.setattr("neurogate.lookups.name_servers.ASK_TIMEOUT_S", lifetime_s)
                with pytest.raises(SourceUnavailableError) as caught:
                    await names(port, timeout=0.1)("workers.example", "A")
                told.append(str(caught.value))
            assert told == [f"A of workers.example: Do53:127.0.0.1@{port}: The DNS operation timed out."] * 2

        run_real(main())


def test_names_are_searched_for_as_the_machine_does_it():
    import dns.name

    async def main() -> None:
        async with FakeNameServer() as server:
            server.put("workers.neurogate.svc.", "A", ["10.0.0.1"])
            search = [dns.name.from_text(suffix) for suffix in ("svc.", "neurogate.svc.")]
            answer = await names(server.port, search=search, ndots=5)("workers", "A")
            assert answer.records == (Record("10.0.0.1"),)

    run_real(main())


def test_without_a_word_the_machines_own_configuration_is_read():
    assert isinstance(NameServers()._configured(), Resolver)


def api(kubernetes: FakeKubernetes, source: KubernetesSource = SOURCE, **settings: Any) -> KubernetesApi:
    return KubernetesApi(source, DiscoverySettings(kubernetes_url=kubernetes.url, **settings), rng=random.Random(1))


def put(kubernetes: FakeKubernetes, *addresses: str, name: str = "a") -> None:
    kubernetes.store.put(slice_object(name, [pod(f"w-{address[-1]}", address) for address in addresses]))


async def following(changes: AsyncIterator[Change], into: list[Change]) -> None:
    async for change in changes:
        into += [change]


def test_slices_are_listed_and_followed():
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            put(kubernetes, "10.0.0.1")
            asked = api(kubernetes)
            listing = await asked.slices()
            assert [slice_.metadata.name for slice_ in listing.slices] == ["a"]
            seen: list[Change] = []
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(following(asked.changes(listing.version), seen))
                await eventually(lambda: kubernetes.watchers == 1)
                put(kubernetes, "10.0.0.1", "10.0.0.2")
                kubernetes.store.bookmark()
                kubernetes.store.delete("a")
                await eventually(lambda: len(seen) == 3)
                task.cancel()
            changed, marked, deleted = seen
            assert changed.slice is not None
            assert [endpoint.addresses for endpoint in changed.slice.endpoints or ()] == [["10.0.0.1"], ["10.0.0.2"]]
            assert (marked.slice, marked.version) == (None, str(kubernetes.store.version - 1))
            assert deleted.deleted
            watch = kubernetes.queries[-1]
            assert watch["labelSelector"] == "kubernetes.io/service-name=workers"
            assert (watch["resourceVersion"], watch["allowWatchBookmarks"]) == (listing.version, "true")
            assert 40 <= int(watch["timeoutSeconds"]) <= 60
            await eventually(lambda: kubernetes.watchers == 0)

    run_real(main())


def test_a_server_without_v1_is_asked_for_v1beta1_and_goes_on_with_that():
    async def main() -> None:
        async with FakeKubernetes(versions=("v1beta1",)) as kubernetes:
            asked = api(kubernetes)
            listing = await asked.slices()
            kubernetes.store.compact()
            with pytest.raises(VersionGoneError):
                await following(asked.changes(listing.version), [])
            kubernetes.versions = ("v1",)
            await asked.slices()
            assert [version for _, version, _ in kubernetes.asked] == ["v1", "v1beta1", "v1beta1", "v1beta1", "v1"]
            kubernetes.versions = ()
            with pytest.raises(SourceUnavailableError, match="has no EndpointSlices"):
                await asked.slices()

    run_real(main())


def test_a_watch_that_breaks_in_the_middle_of_a_line_is_an_error_and_the_line_is_none():
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            seen: list[Change] = []

            async def broken() -> None:
                with pytest.raises(SourceUnavailableError, match=kubernetes.url):
                    await following(api(kubernetes).changes("1"), seen)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(broken())
                await eventually(lambda: kubernetes.watchers == 1)
                put(kubernetes, "10.0.0.1")
                await eventually(lambda: len(seen) == 1)
                kubernetes.cut()

    run_real(main())


@pytest.mark.parametrize(
    ("verb", "status", "body", "said"),
    [
        ("list", 403, "{}", "may not list endpointslices of discovery.k8s.io in namespace neurogate: give the"),
        ("watch", 403, "{}", "may not watch endpointslices"),
        ("list", 401, "{}", "the token in .* is not accepted"),
        ("list", 500, '{"message": "etcdserver: no leader"}', "answered 500 etcdserver: no leader"),
        ("watch", 503, "upstream", "answered 503$"),
        ("list", 200, "<html>", "is not what Kubernetes says"),
        ("watch", 200, "<html>\n", "is not what Kubernetes says"),
        ("watch", 200, '{"type": "ERROR", "object": {"code": 500, "message": "oops"}}\n', "answered 500 oops"),
        ("watch", 200, '{"type": "ERROR", "object": {}}\n', "answered 500$"),
        ("list", 200, b'{"metadata":{"resourceVersion":"\xff"}}', "is not what Kubernetes says"),
        ("watch", 200, b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}\n', "is not what Kubernetes says"),
        ("list", 200, '{"a":' + "[" * 100_000, "is not what Kubernetes says"),
        ("list", 500, b'{"message":"\xff"}', "answered 500$"),
    ],
)
def test_what_is_no_answer_is_told_with_what_to_change(verb: str, status: int, body: str | bytes, said: str):
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            kubernetes.refuses[verb] = (status, body)
            asked = api(kubernetes).slices() if verb == "list" else following(api(kubernetes).changes("1"), [])
            with pytest.raises(SourceUnavailableError, match=said):
                await asked

    run_real(main())


@pytest.mark.parametrize(("status", "body"), [(410, "{}"), (200, '{"type":"ERROR","object":{"code":410}}\n')])
def test_a_version_that_is_gone_is_known_by_status_and_by_event(status: int, body: str):
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            kubernetes.refuses["watch"] = (status, body)
            with pytest.raises(VersionGoneError):
                await following(api(kubernetes).changes("1"), [])

    run_real(main())


def test_answers_have_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubernetes_api, "LIST_BYTES_MAX", 100)
    monkeypatch.setattr(kubernetes_api, "LINE_BYTES_MAX", 100)

    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            kubernetes.refuses = {"list": (200, "x" * 101), "watch": (200, "x" * 101)}
            with pytest.raises(SourceUnavailableError, match="larger than 100 bytes"):
                await api(kubernetes).slices()
            with pytest.raises(SourceUnavailableError, match="longer than 100 bytes"):
                await following(api(kubernetes).changes("1"), [])

    run_real(main())


def test_a_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubernetes_api, "ANSWER_TIMEOUT_S", 0.1)

    async def main() -> None:
        accepted: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asked = KubernetesApi(SOURCE, DiscoverySettings(kubernetes_url=url), rng=random.Random(1))
        with pytest.raises(SourceUnavailableError, match=url):
            await asked.slices()
        server.close()
        for writer in accepted:
            writer.close()
        await server.wait_closed()
        with pytest.raises(SourceUnavailableError, match=url):
            await asked.slices()

    run_real(main())


def test_a_watch_that_a_reader_leaves_is_closed():
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            put(kubernetes, "10.0.0.1")
            changes = cast("Any", api(kubernetes).changes("1"))
            async with aclosing(changes):
                assert (await anext(changes)).slice is not None
            await eventually(lambda: kubernetes.watchers == 0)

    run_real(main())


def account(directory: Path, *, token: str = "one", namespace: str = "neurogate") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "token").write_text(f"{token}\n")
    (directory / "namespace").write_text(namespace)
    return directory


def test_the_namespace_of_a_pod_is_its_own(tmp_path: Path):
    own = KubernetesSource("kubernetes:workers", "", "workers", "")

    async def main() -> None:
        async with FakeKubernetes(namespace="mine") as kubernetes:
            put(kubernetes, "10.0.0.1")
            asked = api(kubernetes, own, kubernetes_account=str(account(tmp_path, namespace="mine\n")))
            assert len((await asked.slices()).slices) == 1
            elsewhere = await api(kubernetes).slices()
            assert elsewhere.slices == (), "there is nothing where there is no such namespace"

    run_real(main())


def test_without_a_namespace_a_gateway_does_not_start(tmp_path: Path):
    own = KubernetesSource("kubernetes:workers", "", "workers", "")
    settings = DiscoverySettings(kubernetes_url="http://localhost:1", kubernetes_account=str(tmp_path))

    with pytest.raises(ConfigError, match=r"'kubernetes:workers' names no namespace, .* write kubernetes:NAMESPACE"):
        KubernetesApi(own, settings, rng=random.Random(1))


def test_the_token_is_read_again_each_time_and_whoever_is_asked_must_be_who_the_account_trusts(tmp_path: Path):
    """Kubernetes replaces the token every hour or so."""
    pki, other = Pki(tmp_path / "pki"), Pki(tmp_path / "other")
    place = account(tmp_path / "account")
    trust = place / "ca.crt"
    ours, others = Path(pki.ca).read_bytes(), Path(other.ca).read_bytes()
    trust.write_bytes(ours)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*pki.issue("api"))

    async def main() -> None:
        async with FakeKubernetes(tls=server) as kubernetes:
            kubernetes.token = "one"
            asked = api(kubernetes, kubernetes_account=str(place))
            await asked.slices()
            kubernetes.token = "two"
            with pytest.raises(SourceUnavailableError, match="is not accepted"):
                await asked.slices()
            account(place, token="two")
            await asked.slices()
            trust.write_bytes(others)
            with pytest.raises(SourceUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await asked.slices()
            trust.unlink()
            with pytest.raises(SourceUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await asked.slices()
            assert [token for _, _, token in kubernetes.asked] == ["one", "one", "two"]

    run_real(main())


def test_a_token_that_is_half_written_or_a_url_that_is_none_is_told(tmp_path: Path):
    (account(tmp_path) / "token").write_bytes(b"one\xc3")
    in_pod = {"kubernetes_host": "::1", "kubernetes_port": 6443, "kubernetes_account": str(tmp_path)}

    async def main() -> None:
        with pytest.raises(SourceUnavailableError, match="token holds no token: it is not ASCII"):
            await KubernetesApi(SOURCE, DiscoverySettings(**in_pod), rng=random.Random(1)).slices()
        for url in ("http://a\x01b", f"http://{'a' * 64}.example"):
            settings = DiscoverySettings(kubernetes_url=url)
            with pytest.raises(SourceUnavailableError):
                await KubernetesApi(SOURCE, settings, rng=random.Random(1)).slices()

    run_real(main())


def test_the_token_is_not_told_without_tls_and_its_absence_is_no_error(tmp_path: Path):
    async def main() -> None:
        async with FakeKubernetes() as kubernetes:
            await api(kubernetes, kubernetes_account=str(account(tmp_path))).slices()
            assert kubernetes.asked[-1][2] == ""

    run_real(main())
    (tmp_path / "token").unlink()
    in_pod = DiscoverySettings(kubernetes_host="::1", kubernetes_port=6443, kubernetes_account=str(tmp_path))
    unreachable = KubernetesApi(SOURCE, in_pod, rng=random.Random(1))

    async def nobody() -> None:
        with pytest.raises(SourceUnavailableError, match=r"https://\[::1\]:6443: "):
            await unreachable.slices()

    run_real(nobody())
