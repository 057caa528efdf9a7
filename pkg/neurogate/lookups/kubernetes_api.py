"""The EndpointSlices of one Service, asked of a Kubernetes API server over plain HTTP and JSON.

The service account's token and certificate authority are files that Kubernetes rewrites, so they are read before each
question. discovery.k8s.io/v1 is asked for, and v1beta1 where a server has not got it (before 1.21).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from neurogate import urls
from neurogate.discovery.addresses import host_port
from neurogate.discovery.kubernetes import Change, Listing, VersionGoneError
from neurogate.discovery.resolver import SourceUnavailableError
from neurogate.discovery.settings import DiscoverySettings
from neurogate.discovery.slices import EndpointSlice, Metadata
from neurogate.discovery.sources import KubernetesSource
from neurogate.errors import ConfigError
from neurogate.prompt_api import UNDECODABLE

if TYPE_CHECKING:
    import httpx

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod has its service account."""

VERSIONS = ("v1", "v1beta1")
ANSWER_TIMEOUT_S = 5.0
WATCH_S = 60.0
"""How long a watch is asked for: a dead connection is noticed by then."""
LIST_BYTES_MAX = 64 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024
"""One slice has up to 1000 endpoints."""
ERROR_BYTES_MAX = 64 * 1024

_T = TypeVar("_T")


class _Slices(msgspec.Struct, frozen=True):
    metadata: Metadata = Metadata()
    items: list[EndpointSlice] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    message: str = ""


class KubernetesApi:
    """A `SliceApi`."""

    def __init__(self, source: KubernetesSource, settings: DiscoverySettings, *, rng: random.Random) -> None:
        """Raises ConfigError when the source names no namespace and there is none of a pod's."""
        self._account = Path(settings.kubernetes_account or ACCOUNT)
        self._url = (
            settings.kubernetes_url.rstrip("/")
            or f"https://{host_port(settings.kubernetes_host, settings.kubernetes_port)}"
        )
        self._namespace = source.namespace or _own_namespace(self._account, source.text)
        self._service = source.service
        self._rng = rng
        self._version = VERSIONS[0]

    async def slices(self) -> Listing:
        """All slices of the Service."""
        others = [version for version in VERSIONS if version != self._version]
        for version in [self._version, *others]:
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    body = await self._list(version)
            except TimeoutError:
                raise SourceUnavailableError(f"{urls.shown(self._url)}: no answer in time") from None
            if body is not None:
                self._version = version
                listed = _decoded(body, _Slices)
                return Listing(tuple(listed.items or ()), listed.metadata.resource_version)
        raise SourceUnavailableError(f"{urls.shown(self._url)} has no EndpointSlices: Kubernetes 1.17 brought them")

    async def changes(self, version: str) -> AsyncIterator[Change]:
        """What happens to them."""
        watch_s = WATCH_S * self._rng.uniform(0.8, 1.0)
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(watch_s)),
        }
        async with self._asked(self._version, query, silence_s=watch_s + ANSWER_TIMEOUT_S) as response:
            if response.status_code != 200:
                self._refuse(response.status_code, await _body(response, ERROR_BYTES_MAX), "watch")
            async with aclosing(_lines(response)) as lines:
                async for line in lines:
                    yield self._change(line)

    async def _list(self, version: str) -> bytes | None:
        """The list as that version has it; None when there is no such version."""
        async with self._asked(version, {}, silence_s=ANSWER_TIMEOUT_S) as response:
            if response.status_code == 404:
                return None
            body = await _body(response, LIST_BYTES_MAX)
        self._refuse(response.status_code, body, "list")
        return body

    def _change(self, line: bytes) -> Change:
        event = _decoded(line, _Event)
        if event.type == "ERROR":
            status = _decoded(event.object, _Status)
            self._refuse(status.code or 500, bytes(event.object), "watch")
        slice_ = _decoded(event.object, EndpointSlice)
        happened = event.type in {"ADDED", "MODIFIED", "DELETED"}
        return Change(slice_.metadata.resource_version, slice_ if happened else None, deleted=event.type == "DELETED")

    @asynccontextmanager
    async def _asked(
        self, version: str, query: Mapping[str, str], *, silence_s: float
    ) -> AsyncIterator[httpx.Response]:
        """One question, whose answer may pause for so long. What breaks underneath is a SourceUnavailableError."""
        import httpx

        url = f"{self._url}/apis/discovery.k8s.io/{version}/namespaces/{self._namespace}/endpointslices"
        try:
            headers, trust = await asyncio.to_thread(self._credentials)
            async with (
                httpx.AsyncClient(verify=trust, trust_env=False, timeout=ANSWER_TIMEOUT_S) as client,
                client.stream(
                    "GET",
                    url,
                    params={"labelSelector": f"kubernetes.io/service-name={self._service}", **query},
                    headers=headers,
                    timeout=httpx.Timeout(ANSWER_TIMEOUT_S, read=silence_s),
                ) as response,
            ):
                yield response
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError) as error:
            reason = str(error) or type(error).__name__
            raise SourceUnavailableError(f"{urls.shown(self._url)}: {reason}") from error

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | bool]:
        """The token, never told over plain HTTP, and whom to trust. Raises OSError and SourceUnavailableError."""
        if not self._url.startswith("https:"):
            return {}, False
        authority = self._account / "ca.crt"
        trust = ssl.create_default_context(cafile=str(authority) if authority.exists() else None)
        # Clusters' own authorities are often older than what Python 3.13 is strict about.
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
        file = self._account / "token"
        if not file.exists():
            return {}, trust
        try:
            token = file.read_text(encoding="ascii").strip()
        except ValueError as error:  # for example while it is being written
            raise SourceUnavailableError(f"{file} holds no token: it is not ASCII") from error
        return {"Authorization": f"Bearer {token}"}, trust

    def _refuse(self, status: int, body: bytes, verb: str) -> None:
        """Raise for what is no success."""
        if status == 200:
            return
        if status == 410:
            raise VersionGoneError
        if status == 401:
            raise SourceUnavailableError(f"the token in {self._account} is not accepted")
        if status == 403:
            raise SourceUnavailableError(
                f"may not {verb} endpointslices of discovery.k8s.io in namespace {self._namespace}: "
                "give the service account a Role with get, list and watch (discovery.md)"
            )
        try:
            message = msgspec.json.decode(body, type=_Status).message
        except UNDECODABLE:
            message = ""
        raise SourceUnavailableError(f"{urls.shown(self._url)} answered {status} {message}".rstrip())


def _own_namespace(account: Path, source: str) -> str:
    try:
        return (account / "namespace").read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"NEUROGATE_DISCOVERY: {source!r} names no namespace, and there is none in {account}: "
            "write kubernetes:NAMESPACE/SERVICE, or set NEUROGATE_KUBERNETES_ACCOUNT"
        ) from error


async def _body(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > limit:
            raise SourceUnavailableError(f"the API server's answer is larger than {limit} bytes")
    return bytes(body)


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Each line that came whole."""
    left = b""
    async for piece in response.aiter_bytes():
        *lines, left = (left + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(left) > LINE_BYTES_MAX:
            raise SourceUnavailableError(f"a line of the API server's is longer than {LINE_BYTES_MAX} bytes")


def _decoded(body: bytes | msgspec.Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNDECODABLE as error:
        raise SourceUnavailableError(f"the API server's answer is not what Kubernetes says: {error}") from error
