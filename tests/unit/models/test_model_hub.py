"""Hugging Face references, with the hub's client when it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from neurogate.models import hub
from neurogate.models.errors import ModelError
from neurogate.models.store import ModelStore


class FakeHub:
    """A hub with one repository and a local snapshot."""

    def __init__(self, tmp_path: Path, files: list[str], cached: tuple[str, ...] = ()) -> None:
        self.snapshot = tmp_path / "snapshot"
        self.files = files
        self.downloaded: list[str] = []
        for file in cached:
            self._write(file)

    def _write(self, file: str) -> str:
        path = self.snapshot / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")
        return str(path)

    def snapshot_download(self, repo: str, *, local_files_only: bool) -> str:
        assert local_files_only
        if not self.snapshot.exists():
            raise FileNotFoundError("not cached")
        return str(self.snapshot)

    def list_repo_files(self, repo: str) -> list[str]:
        if repo != "owner/repo":
            raise OSError("404 Repository Not Found")
        return self.files

    def hf_hub_download(self, repo: str, file: str) -> str:
        self.downloaded.append(file)
        return self._write(file)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
        names = ("snapshot_download", "list_repo_files", "hf_hub_download")
        monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(**{n: getattr(self, n) for n in names}))
        return self


@pytest.mark.parametrize("reference", ["hf:a/b", "a/b", "a/b:Q4_K_M", "hf:a/b:sub/model-Q8_0.gguf"])
def test_references(reference):
    assert hub.is_reference(reference)


@pytest.mark.parametrize("reference", ["tiny", "/a/b", "a/b/c", "http://a/b", "a/b:c:d", ""])
def test_no_references(reference):
    assert not hub.is_reference(reference)


def test_missing_client_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(ModelError, match=r"pip install 'neurogate\[huggingface\]'"):
        ModelStore(tmp_path).resolve("owner/repo")


def test_quant_is_downloaded(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path, ["README.md", "M-Q4_K_M.gguf", "M-Q8_0.gguf"]).install(monkeypatch)

    name, path = ModelStore(tmp_path).resolve("hf:owner/repo:q8_0")

    assert (name, path) == ("m-q8_0", fake.snapshot / "M-Q8_0.gguf")
    assert fake.downloaded == ["M-Q8_0.gguf"]


def test_split_model_is_downloaded_whole(monkeypatch, tmp_path):
    parts = [f"q4/M-0000{part}-of-00002.gguf" for part in (1, 2)]
    fake = FakeHub(tmp_path, parts).install(monkeypatch)

    assert hub.fetch("owner/repo") == fake.snapshot / parts[0]
    assert fake.downloaded == parts


def test_cached_file_needs_no_hub(monkeypatch, tmp_path):
    fake = FakeHub(tmp_path, [], cached=("M-Q4_K_M.gguf",)).install(monkeypatch)

    assert hub.fetch("owner/repo") == fake.snapshot / "M-Q4_K_M.gguf"
    assert hub.fetch("elsewhere/repo") == fake.snapshot / "M-Q4_K_M.gguf"


def test_half_cached_split_model_is_completed(monkeypatch, tmp_path):
    parts = [f"M-0000{part}-of-00002.gguf" for part in (1, 2)]
    fake = FakeHub(tmp_path, parts, cached=(parts[0],)).install(monkeypatch)

    hub.fetch("owner/repo")

    assert fake.downloaded == parts


def test_default_quant_is_the_usual_one():
    assert hub.choose(["a-Q8_0.gguf", "a-Q4_K_M.gguf"], "") == "a-Q4_K_M.gguf"
    assert hub.choose(["a-F16.gguf"], "") == "a-F16.gguf"
    assert hub.choose(["a-F16.gguf"], "Q4") is None
    assert hub.choose(["x/a.gguf"], "x/a.gguf") == "x/a.gguf"


def test_nothing_that_matches_is_told(monkeypatch, tmp_path):
    FakeHub(tmp_path, ["README.md"]).install(monkeypatch)

    with pytest.raises(ModelError, match="owner/repo has no GGUF file that matches Q4"):
        hub.fetch("owner/repo:Q4")
    with pytest.raises(ModelError, match=r"has no GGUF file$"):
        hub.fetch("owner/repo")


def test_unknown_repository_is_told(monkeypatch, tmp_path):
    FakeHub(tmp_path, []).install(monkeypatch)

    with pytest.raises(ModelError, match="could not be fetched from Hugging Face: 404"):
        hub.fetch("other/repo")


def test_malformed_reference_is_told(monkeypatch, tmp_path):
    FakeHub(tmp_path, []).install(monkeypatch)

    with pytest.raises(ModelError, match="not of the form"):
        hub.fetch("hf:one")
