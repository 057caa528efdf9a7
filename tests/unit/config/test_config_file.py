"""The configuration file: YAML as of 1.2, TOML, and what is said of a file that is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from neurogate.config.file import FILE_BYTES_MAX, fingerprint, read
from neurogate.errors import ConfigError


def values(path: Path) -> dict[str, dict[str, object]]:
    return {section: {key: value.value for key, value in keys.items()} for section, keys in read(path).items()}


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_yaml_values_come_with_their_lines(tmp_path: Path):
    path = written(tmp_path, "n.yaml", "# ours\ngateway:\n  http_port: 80\n  names: [a, b]\n\nkeys: {x: y}\n")

    document = read(path)

    assert values(path) == {"gateway": {"http_port": 80, "names": ["a", "b"]}, "keys": {"x": "y"}}
    assert document["gateway"]["names"].where == "n.yaml:4"
    assert document["keys"]["x"].where == "n.yaml:6"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("0755", "0755"),
        ("2026-01-02", "2026-01-02"),
        ("12", 12),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("", None),
        ("~", None),
        ('"12"', "12"),
        ("|\n    a\n    b\n", "a\nb\n"),
    ],
)
def test_yaml_means_what_version_1_2_means(tmp_path: Path, text: str, value: object):
    assert values(written(tmp_path, "n.yml", f"s:\n  k: {text}")) == {"s": {"k": value}}


def test_toml_values_come_with_the_file(tmp_path: Path):
    path = written(tmp_path, "n.toml", '[gateway]\nhttp_port = 80\nnames = ["a"]\n')

    assert values(path) == {"gateway": {"http_port": 80, "names": ["a"]}}
    assert read(path)["gateway"]["http_port"].where == "n.toml"


def test_a_section_without_keys_and_a_file_of_comments_say_nothing(tmp_path: Path):
    assert values(written(tmp_path, "a.yaml", "keys:\nlimits:\n")) == {"keys": {}, "limits": {}}
    assert values(written(tmp_path, "b.yaml", "# nothing\n")) == {}
    assert values(written(tmp_path, "c.toml", "# nothing\n")) == {}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("n.yaml", "a: b: c\n", "n.yaml:1: mapping values are not allowed here"),
        ("n.yaml", "s:\n  k: 1\n  k: 2\n", r"k \(n.yaml:3\): comes twice in s"),
        ("n.yaml", "s: {}\ns: {}\n", r"s \(n.yaml:2\): comes twice in the file"),
        ("n.yaml", "just words\n", r"the file \(n.yaml:1\): must be a mapping"),
        ("n.yaml", "s:\n  http_po", r"s \(n.yaml:2\): must be a mapping"),
        ("n.yaml", "s:\n  [a]: 1\n", r"s \(n.yaml:2\): a key must be a name"),
        ("n.yaml", "s: {}\n---\nt: {}\n", "n.yaml:2: but found another document"),
        ("n.yaml", "s:\n  k: !!python/object:os.system x\n", "n.yaml:2: could not determine a constructor"),
        ("n.yaml", "s:\n  k: *nobody\n", "n.yaml:2: found undefined alias"),
        ("n.yaml", "s:\n  k: \x07\n", "has characters that YAML does not allow"),
        ("n.yaml", "s:\n  k: !!int x\n", "is not YAML that can be understood"),
        ("n.yaml", "s:\n  k: " + "[" * 2000, "is not YAML that can be understood"),
        ("n.toml", "[s\n", r"n.toml: Expected '\]'"),
        ("n.toml", "k = 1\n", r"k \(n.toml\): must be a section, \[k\]"),
        ("n.toml", "k = " + "[" * 5000, "n.toml: is nested too deeply"),
        ("n.json", "{}", "must end in .yaml, .yml or .toml"),
        ("n.yaml", " \n\n", "n.yaml: is empty"),
        ("n.toml", "", "n.toml: is empty"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name: str, text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        read(written(tmp_path, name, text))


def test_a_file_that_is_not_there_names_the_setting(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"NEUROGATE_CONFIG: cannot read .*n.yaml: No such file"):
        read(tmp_path / "n.yaml")


def test_a_huge_file_and_one_that_is_no_text_are_refused(tmp_path: Path):
    huge, binary = tmp_path / "huge.yaml", tmp_path / "binary.yaml"
    huge.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    binary.write_bytes(b"s: \xff\xfe")

    with pytest.raises(ConfigError, match="is larger than"):
        read(huge)
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read(binary)


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path: Path):
    path = tmp_path / "n.yaml"
    path.write_bytes(b"\xef\xbb\xbfs: {k: 1}\n")

    assert values(path) == {"s": {"k": 1}}


def test_a_fingerprint_follows_the_content_through_a_swapped_link(tmp_path: Path):
    """ConfigMaps are updated by swapping a symbolic link; a touched file is no new one."""
    one, other = written(tmp_path, "1.yaml", "s: {k: 1}"), written(tmp_path, "2.yaml", "s: {k: 2}")
    link = tmp_path / "n.yaml"
    link.symlink_to(one)
    first = fingerprint(link)

    one.touch()
    assert fingerprint(link) == first
    link.unlink()
    link.symlink_to(other)
    assert fingerprint(link) != first
    link.unlink()
    assert fingerprint(link) not in {first, b""}
