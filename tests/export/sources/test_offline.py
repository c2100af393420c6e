"""Without a network a name is refused at once, and what is in the download cache still works."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from codes import raises_code
from huggingface_hub import constants

from edgepure_export.sources import offline
from edgepure_export.sources.offline import downloading, reachable

#: No service listens there, so a connection is refused.
NOWHERE = "http://127.0.0.1:9"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Always(BaseHTTPRequestHandler):
    """Answers every request with the status of the server."""

    def do_HEAD(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Always) as running:
        running.status = 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/model"


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_server_is_there_whatever_it_answers(server: HTTPServer, status: int) -> None:
    server.status = status  # type: ignore[attr-defined]
    assert reachable(address(server))


@pytest.mark.parametrize("url", [NOWHERE, "http://no-such-host.invalid/model"])
def test_nobody_there(url: str) -> None:
    assert not reachable(url)


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", patience=0.2)


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of a connection does not cover the look-up."""
    stop = threading.Event()
    monkeypatch.setattr(offline, "_answers", lambda url, patience: stop.wait(60))
    assert not reachable("http://slow-dns.invalid", patience=0.1)
    stop.set()


def test_the_proxy_of_the_environment_is_asked(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", address(server).removesuffix("/model"))
    assert reachable("http://only-the-proxy-knows.invalid/model")
    monkeypatch.setenv("http_proxy", NOWHERE)
    assert not reachable("http://only-the-proxy-knows.invalid/model")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    assert reachable("http://only-the-proxy-knows.invalid/model"), "a proxy that only the libraries can use"


@pytest.fixture
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)


@pytest.mark.usefixtures("_no_hub")
def test_without_the_hub_its_library_is_told_to_work_offline() -> None:
    with downloading("timm:resnet18", "download it"):
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()
    with pytest.raises(KeyError), downloading("timm:resnet18", "download it"):
        raise KeyError("a defect is no network fault")
    assert not constants.is_offline_mode()


@pytest.mark.usefixtures("_no_hub")
def test_a_model_that_is_not_in_the_cache_is_refused_with_one_sentence(tmp_path: Path) -> None:
    refused = raises_code("E-source-offline")
    with refused, downloading("diffusers:some/model", "give diffusers:FOLDER"):
        huggingface_hub.snapshot_download("some/model", cache_dir=tmp_path)


@pytest.mark.usefixtures("_no_hub")
def test_a_model_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    model = tmp_path / "models--some--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    (model / "snapshots" / COMMIT / "config.json").write_text("{}")
    with downloading("diffusers:some/model", "give diffusers:FOLDER"):
        found = huggingface_hub.snapshot_download("some/model", cache_dir=tmp_path, allow_patterns=["config.json"])
    assert (Path(found) / "config.json").read_text() == "{}"


def test_with_the_hub_nothing_changes(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address(server))
    with downloading("timm:resnet18", "download it"):
        assert not constants.is_offline_mode()


def test_a_file_of_another_server(server: HTTPServer) -> None:
    with downloading("torchvision:resnet18", "download resnet18.pth", address(server)):
        pass
    refused = raises_code("E-source-offline")
    with refused, downloading("torchvision:resnet18", "download resnet18.pth", f"{NOWHERE}/resnet18.pth"):
        raise AssertionError("nothing is tried")
