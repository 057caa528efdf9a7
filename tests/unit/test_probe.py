from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from neurogate import probe


@contextmanager
def answering(answer: bytes, asked: list[bytes] | None = None) -> Iterator[int]:
    """A server on the port, for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                request = connection.recv(4096)
                if asked is not None:
                    asked.append(request)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(10)


def test_200_is_well_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[bytes] = []
    with answering(b"HTTP/1.1 200 OK\r\n\r\n", asked) as port:
        assert probe.main([f"http://127.0.0.1:{port}/ready"]) == 0

    assert asked[0].startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\n\r\n", b"", b"200\r\n"])
def test_anything_else_is_not_and_is_told(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(answer) as port:
        assert probe.main([f"http://127.0.0.1:{port}/ready"]) == 1

    told = capsys.readouterr().err
    assert answer.decode().strip() in told
    assert f":{port}/ready: " in told


def test_a_process_that_does_not_listen_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert probe.main([f"http://127.0.0.1:{port}/"]) == 1
    assert "refused" in capsys.readouterr().err


def test_a_port_that_cannot_be_is_not_well() -> None:
    assert probe.main(["http://127.0.0.1:70000/ready"]) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["http://a:1/", "http://a:1/"], ["https://a:1/"], ["a:1"], ["http://a/ready"], ["http://:1/"]]
)
def test_what_is_no_plain_url_with_a_port_is_a_mistake(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert probe.main(arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_without_arguments_it_takes_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["neurogate-probe", "ftp://x:1/"])

    assert probe.main() == 2
