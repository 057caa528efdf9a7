"""Finds a wheel the way pip would: in the indexes, mirrors and directories that this machine's pip is configured for.

pip tells its configuration (`pip config list`, and the default index in `pip download --help`); the pages are read as
PEP 503 says. Asking pip itself to resolve would download the whole wheel, unseen, from every index without PEP 658.
"""

from __future__ import annotations

import ast
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from neurogate import urls
from neurogate.config import child_environment, environment
from neurogate.models.errors import ModelError, SourceError

if TYPE_CHECKING:
    import httpx

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class WheelLocation:
    """Where a wheel is."""

    url: str
    """`https:`, `http:` or `file:`."""
    sha256: str = ""
    """What the index says; empty when it says nothing."""

    @property
    def path(self) -> Path | None:
        """The local file, when it is one."""
        return file_path(self.url)


class PipConfiguration:
    """The part of pip's configuration that says where packages come from.

    Read from pip once. Raises SourceError when there is no pip.
    """

    def __init__(self, run: Callable[..., str] | None = None) -> None:
        self._run = run or run_pip
        self._options = dict(self._listed())

    @property
    def find_links(self) -> list[str]:
        """Directories and pages to look into first."""
        return self._options.get("find-links", "").split()

    @property
    def indexes(self) -> list[str]:
        """Base URLs of the indexes in pip's order; none when pip must not use any."""
        if self._options.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
            return []
        first = self._options.get("index-url") or self._default_index()
        return [first, *self._options.get("extra-index-url", "").split()]

    @property
    def ca_file(self) -> str:
        """A file of certificates to trust besides the system's; empty when none is configured."""
        return self._options.get("cert", "")

    def _listed(self) -> Iterator[tuple[str, str]]:
        by_section: dict[str, dict[str, str]] = {}
        for line in self._run("config", "list").splitlines():
            key, _, value = line.partition("=")
            section, _, option = key.rpartition(".")
            by_section.setdefault(section, {})[option] = str(ast.literal_eval(value))
        for section in ("global", "download", ":env:"):  # later ones win
            yield from by_section.get(section, {}).items()

    def _default_index(self) -> str:
        found = re.search(r"--index-url <url>.*?default\s+(\S+?)\)", self._run("download", "--help"), re.DOTALL)
        if found is None:
            raise SourceError("pip does not tell its index")
        return found[1]


def run_pip(*arguments: str, stop: threading.Event | None = None) -> str:
    """The output of this interpreter's pip.

    Raises SourceError with pip's last words when it fails or is missing, ModelError when `stop` was set meanwhile.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "pip", *arguments],
        env=child_environment({"COLUMNS": "1000"}),  # no wrapped lines
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                if stop is not None and stop.is_set():
                    process.kill()
                    raise ModelError("fetching was stopped") from None
    if process.returncode != 0:
        raise SourceError(f"pip failed: {last_line(errors)}")
    return output


def last_line(text: str) -> str:
    """The last line with anything on it, of which the end matters most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def trust(ca_file: str) -> ssl.SSLContext:
    """The certificates that this machine trusts: the system's, pip's, and what the usual variables name."""
    import httpx

    context = httpx.create_ssl_context()
    context.load_default_certs()
    named = environment("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE").values()
    for file in {ca_file, *named}:
        if file and Path(file).is_file():
            context.load_verify_locations(file)
    return context


def locate(wheel: str, package: str, configuration: PipConfiguration, client: httpx.Client) -> WheelLocation:
    """Where the wheel with this exact file name is.

    Raises SourceError naming every place that was asked when it is in none of them.
    """
    places = [*configuration.find_links, *(f"{index.rstrip('/')}/{package}/" for index in configuration.indexes)]
    asked: list[str] = []
    for place in places:
        try:
            for link in _links(place, client):
                if urlsplit(link).path.rpartition("/")[2] == wheel:
                    url, fragment = urldefrag(link)
                    algorithm, _, digest = fragment.partition("=")
                    return WheelLocation(url, digest if algorithm == "sha256" else "")
            asked.append(f"{urls.shown(place)}: not there")
        except SourceError as error:
            asked.append(f"{urls.shown(place)}: {error}")
    raise SourceError(f"{wheel} was not found ({'; '.join(asked) or 'pip is configured to ask nobody'})")


def file_path(url: str) -> Path | None:
    """The path that a `file:` URL or a plain path means; None for other URLs."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(url2pathname(unquote(parts.path)))
    return None if parts.scheme else Path(url).expanduser()


def _links(place: str, client: httpx.Client) -> list[str]:
    path = file_path(place)
    if path is None:
        return _read(place, client)
    if path.is_dir():
        page = path / "index.html"
        if not page.is_file():
            return [file.absolute().as_uri() for file in sorted(path.iterdir())]
        path = page
    if not path.is_file():
        return []
    return _hrefs(path.read_text("utf-8", "replace"), path.absolute().as_uri())


def _read(page: str, client: httpx.Client) -> list[str]:
    import httpx

    try:
        answer = client.get(page, headers={"Accept": "text/html"}, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(str(error) or type(error).__name__) from error
    if answer.status_code == 404:
        return []
    if answer.status_code >= 400:
        raise SourceError(f"answered {answer.status_code}")
    return _hrefs(answer.text, str(answer.url))


def _hrefs(page: str, base: str) -> list[str]:
    found = _Anchors()
    found.feed(page)
    return [urljoin(base, href) for href in found.hrefs]


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.hrefs.extend(value for name, value in attrs if name == "href" and value)
