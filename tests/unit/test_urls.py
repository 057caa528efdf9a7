"""User and password in a URL are told to nobody."""

from __future__ import annotations

import pytest

from neurogate import urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1/x", "http://host:1/x"),
        ("http://user:secret@host:1/x", "http://host:1/x"),
        ("http://secret@host", "http://host"),
        ("http://user:se@cret@host", "http://host"),
        ("http://user:se/cret@host:1", "host:1"),
        ("http://user:secret@host:99999", "host:99999"),
        ("http://user:secret@[bad", "[bad"),
        ("/a/path@home", "/a/path@home"),
        ("host", "host"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_user_and_password(url: str, shown: str) -> None:
    assert urls.shown(url) == shown


@pytest.mark.parametrize(
    ("url", "user"), [("http://host", ""), ("http://user:secret@host", "user:secret"), ("http://a@[bad", "")]
)
def test_a_url_may_name_a_user(url: str, user: str) -> None:
    assert urls.userinfo(url) == user


@pytest.mark.parametrize("url", ["http://secret@[bad", "http://user:secret@host:99999"])
def test_what_is_no_url_is_not_quoted(url: str) -> None:
    with pytest.raises(ValueError, match=r"^it is no URL$"):
        urls.split(url)
