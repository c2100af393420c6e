"""A model repository in a real tritonserver, asked by NVIDIA's own clients. Run by ``make test-triton``."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli_process
import numpy as np
import pytest
from ports import free_port

import edgepure

ENVIRONMENT = os.environ.get("EDGEPURE_TRITON_ENV")
pytestmark = pytest.mark.skipif(ENVIRONMENT is None, reason="needs a tritonserver: make test-triton")
DIGITS = edgepure.demo_images()


@dataclass
class Triton:
    http: str
    grpc: str


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A server of two models: one for any client, one for streams."""
    assert ENVIRONMENT is not None
    folder = tmp_path_factory.mktemp("triton")
    digits = edgepure.demo_bundle()
    for options in (
        (f"digits={digits}", "--preset", "uniform", "--votes", "1"),
        (f"stream={digits}", "--preset", "uniform-ssni", "--votes", "1", "--streams", "--show", "probabilities"),
    ):
        done = cli_process.run("triton", *options, "--threads", "1", "--out", folder / "models")
        assert done.code == 0, done.stderr
    packages = next(Path(ENVIRONMENT).glob("lib/python3.*/site-packages"))
    server = packages / "pytriton" / "tritonserver"
    shutil.copytree(server / "backends", folder / "backends")
    version = packages.parent.name.removeprefix("python")
    shutil.copy(
        server / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "backends" / "python"
    )
    library = subprocess.run(
        [f"{ENVIRONMENT}/bin/python", "-c", "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    ports = [free_port() for _ in range(3)]
    names = ("--http-port", "--grpc-port", "--metrics-port")
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            server / "bin" / "tritonserver",
            "--model-repository",
            folder / "models",
            "--backend-directory",
            folder / "backends",
            *[text for name, port in zip(names, ports, strict=True) for text in (name, str(port))],
        ],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": f"{library}:{packages / 'nvidia_pytriton.libs'}",
            "PATH": f"{ENVIRONMENT}/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{packages}:{Path(edgepure.__file__).parents[1]}",
        },
        stdout=log,
        stderr=log,
    )
    found = Triton(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    http = pytest.importorskip("tritonclient.http").InferenceServerClient(found.http)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                if http.is_server_ready():
                    break
            except OSError:
                pass
            time.sleep(0.2)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def image_input(client: Any, images: Any) -> Any:
    tensor = client.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return tensor


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_ordinary_clients(triton: Triton, protocol: str) -> None:
    client = pytest.importorskip(f"tritonclient.{protocol}")
    server = client.InferenceServerClient(getattr(triton, protocol))
    assert server.is_model_ready("digits")
    answer = server.infer("digits", [image_input(client, DIGITS.clean[:8])])
    assert answer.as_numpy("label").ravel().tolist() == DIGITS.labels[:8].tolist()
    assert [int(name) for name in answer.as_numpy("class_name").ravel()] == DIGITS.labels[:8].tolist()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_is_no_image_is_the_clients_fault(triton: Triton, protocol: str) -> None:
    client = pytest.importorskip(f"tritonclient.{protocol}")
    exceptions = pytest.importorskip("tritonclient.utils")
    tensor = client.InferInput("file", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"no image"]], np.object_))
    with pytest.raises(exceptions.InferenceServerException) as caught:
        client.InferenceServerClient(getattr(triton, protocol)).infer("digits", [tensor])
    assert "E-image" in str(caught.value.message())


def test_a_stream_answers_each_when_it_is_done(triton: Triton) -> None:
    client = pytest.importorskip("tritonclient.grpc")
    server = client.InferenceServerClient(triton.grpc)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    server.start_stream(lambda result, error: answers.put((result, error)))
    for index in range(20):
        server.async_stream_infer("stream", [image_input(client, DIGITS.clean[index][None])], request_id=str(index))
    labels = {}
    for _ in range(20):
        result, error = answers.get(timeout=60)
        assert error is None
        labels[int(result.get_response().id)] = int(result.as_numpy("label")[0, 0])
        assert result.as_numpy("probabilities").shape == (1, 10)
    server.stop_stream()
    assert [labels[index] for index in range(20)] == DIGITS.labels[:20].tolist()
