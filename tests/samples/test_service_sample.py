"""The sample service as a process: limits, back-pressure, and an end that loses no answer."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import environment
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
#: A preset of many rows, so that images are still being purified when the signal comes.
LONG = ("--votes", "60")

pytestmark = pytest.mark.samples


class Started:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.load(answer)
        finally:
            connection.close()

    def end(self, number: int) -> str:
        self.process.send_signal(number)
        said, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        return said


Start = Callable[..., Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[str]] = []

    def started(*options: str) -> Started:
        url = tmp_path / "url"
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "samples/16_service/server.py"), "--url-file", str(url), *options],
            env={**environment(), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        until = time.monotonic() + 60
        while not url.exists():
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                pytest.fail(str(process.communicate()))
            time.sleep(0.02)
        return Started(process, int(url.read_text().rpartition(":")[2]))

    yield started
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_what_it_answers_and_what_it_refuses(start: Start, png: bytes) -> None:
    service = start("--votes", "1")
    code, body = service.ask("POST", "/classify", png)
    assert code == 200 and set(body) == {"label", "probability"}, "and nothing that tells of the noise"
    assert service.ask("GET", "/health") == (200, {"waiting": 0})
    for path in ("/", "/classify?seed=7", "/../etc/passwd"):
        assert service.ask("POST", path, png)[0] == 404
    assert service.ask("GET", "/classify")[0] == 404
    assert service.ask("POST", "/classify", b"", **{"Content-Length": str(1 << 40)})[0] == 413
    for size in ("-1", "ten", "1e3", ""):
        assert service.ask("POST", "/classify", b"", **{"Content-Length": size})[0] == 411
    for data in (b"", b"hello", png[:36]):
        code, body = service.ask("POST", "/classify", data)
        assert code == 400 and body["error"].startswith("image 0: it ")
    assert service.ask("POST", "/classify", png)[0] == 200, "it is as it was"
    assert service.end(signal.SIGINT).startswith("ended: ")


def test_whoever_is_accepted_is_answered_and_the_others_at_once(start: Start, png: bytes) -> None:
    service = start(*LONG, "--waiting", "2")
    with ThreadPoolExecutor(12) as clients:
        codes = [code for code, _ in clients.map(lambda _: service.ask("POST", "/classify", png), range(12))]
    assert set(codes) == {200, 503} and codes.count(200) >= 2, codes
    assert service.ask("POST", "/classify", png)[0] == 200, "it is not busy any more"
    service.end(signal.SIGTERM)


def test_sigterm_loses_no_answer(start: Start, png: bytes) -> None:
    service = start(*LONG)
    clients = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=60) for _ in range(4)]
    for client in clients:
        client.request("POST", "/classify", png)
    assert service.ask("GET", "/health")[0] == 200, "connections are taken in their order: those before have been"
    said = service.end(signal.SIGTERM)
    assert [client.getresponse().status for client in clients] == [200] * len(clients)
    assert said == f"ended: {(1 + len(clients)) * 60} purifications were finished\n"
    with pytest.raises(ConnectionError):
        service.ask("GET", "/health")


def test_clients_that_go_away(start: Start, png: bytes) -> None:
    service = start(*LONG)
    head = f"POST /classify HTTP/1.0\r\nContent-Length: {len(png)}\r\n\r\n".encode()
    for sent in (b"", b"POST", head, head + png[:20], head + png):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(sent)
    assert service.ask("POST", "/classify", png)[0] == 200
    service.end(signal.SIGTERM)
