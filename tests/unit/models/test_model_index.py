"""Wheels are found where this machine's pip would look."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from neurogate.models.errors import ModelError, SourceError
from neurogate.models.index import PipConfiguration, last_line, locate, run_pip, trust


def configured(listing: str, usage: str = "") -> PipConfiguration:
    return PipConfiguration(run=lambda *arguments: listing if arguments == ("config", "list") else usage)


def find(configuration: PipConfiguration) -> tuple[str, str]:
    with httpx.Client(timeout=10, trust_env=False) as client:
        found = locate("tiny_model-1.0-py3-none-any.whl", "tiny-model", configuration, client)
    return found.url, found.sha256


def test_environment_wins_over_files():
    found = configured("global.index-url='http://file'\n:env:.index-url='http://env'\ndownload.cert='/c'\n")

    assert found.indexes == ["http://env"]
    assert found.ca_file == "/c"


def test_default_index_is_what_pip_says_it_is():
    found = configured(
        "global.extra-index-url='http://b http://c'\n",
        "  -i, --index-url <url>  Base URL of the index (default http://a/simple). This",
    )

    assert found.indexes == ["http://a/simple", "http://b", "http://c"]


def test_pip_without_a_default_index_is_a_source_error():
    with pytest.raises(SourceError, match="does not tell its index"):
        _ = configured("", "nothing").indexes


def test_no_index_leaves_only_the_links():
    found = configured(":env:.no-index='1'\n:env:.find-links='/a /b'\n")

    assert found.indexes == []
    assert found.find_links == ["/a", "/b"]


def test_this_pip_tells_its_configuration(pip_uses):
    pip_uses(index_url="http://127.0.0.1:1/simple", cert="/x.pem")

    found = PipConfiguration()

    assert found.indexes == ["http://127.0.0.1:1/simple"]
    assert found.ca_file == "/x.pem"


def test_this_pip_tells_its_default_index(pip_uses, monkeypatch):
    pip_uses()
    monkeypatch.delenv("PIP_NO_INDEX")

    (index,) = PipConfiguration().indexes

    assert index.startswith("https://")
    assert index.endswith("/simple")


def test_wheel_in_a_directory(wheel):
    url, _ = find(configured(f":env:.no-index='1'\n:env:.find-links='{wheel.parent}'\n"))

    assert url == wheel.as_uri()


def test_wheel_in_a_local_index_page(wheel, tmp_path):
    page = tmp_path / "index" / "tiny-model" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="{wheel.as_uri()}#md5=1">w</a>')

    url, sha256 = find(configured(f":env:.index-url='{(tmp_path / 'index').as_uri()}'\n"))

    assert (url, sha256) == (wheel.as_uri(), "")


def test_wheel_in_an_index_with_its_hash(serve):
    server = serve(digest="ab" * 32)

    assert find(configured(f":env:.index-url='{server.index}/'\n")) == (server.file, "ab" * 32)


def test_next_place_is_asked_when_one_is_down(serve):
    server = serve()
    down = f":env:.index-url='http://127.0.0.1:1'\n:env:.extra-index-url='{server.url}/broken {server.index}'\n"

    url, _ = find(configured(down))

    assert url == server.file


def test_every_place_is_named_without_its_password_when_none_has_it(serve, tmp_path):
    server = serve()
    places = f":env:.index-url='{server.url.replace('//', '//user:secret@')}/other'\n:env:.find-links='{tmp_path}/no'\n"

    with pytest.raises(SourceError, match="not there") as caught:
        find(configured(places))

    assert f"{server.url}/other/tiny-model/" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_nowhere_to_ask_is_said():
    with pytest.raises(SourceError, match="configured to ask nobody"):
        find(configured(":env:.no-index='1'\n"))


def test_failing_pip_gives_its_last_words():
    with pytest.raises(SourceError, match=r"pip failed: .*no-such-command"):
        run_pip("no-such-command")


def test_silent_failure_is_said_so():
    assert last_line("\n \n") == "it said nothing"


def test_pip_is_ended_with_the_fetch(serve, pip_uses, tmp_path):
    server = serve(gate=threading.Event())
    pip_uses(index_url=server.index)
    stop = threading.Event()
    watcher = threading.Thread(target=lambda: (server.begun.wait(30), stop.set()))
    watcher.start()

    with pytest.raises(ModelError, match="was stopped"):
        run_pip("download", "--no-deps", "--dest", str(tmp_path), "tiny-model==1.0", stop=stop)

    watcher.join()


def test_configured_certificates_are_trusted(tmp_path):
    from certifi import where

    certificates = tmp_path / "ca.pem"
    lines = Path(where()).read_text().partition("-----END CERTIFICATE-----")
    certificates.write_text(lines[0] + lines[1] + "\n")

    assert trust(str(certificates)).get_ca_certs()
    assert trust("").get_ca_certs()
