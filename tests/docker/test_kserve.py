"""The KServe manifest starts a server that answers where its probes and its protocol ask."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from cli_process import environment
from ports import free_port

import edgepure

yaml = pytest.importorskip("yaml")
for needed in ("starlette", "uvicorn", "grpc", "prometheus_client"):
    pytest.importorskip(needed)

MANIFEST = Path(__file__).resolve().parents[2] / "docker" / "kserve.yaml"


def test_the_container_answers_its_probes() -> None:
    service, runtime = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [f["name"] for f in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    container = runtime["spec"]["containers"][0]
    port = free_port()
    here = {
        "{{.Name}}=/mnt/models": f"{service['metadata']['name']}={os.fspath(edgepure.demo_bundle())}",
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=8080": f"--port={port}",
        "--grpc-port=8081": "--grpc-port=0",
    }
    assert set(here) <= set(container["args"]) and container["ports"][0]["containerPort"] == 8080
    arguments = [here.get(argument, argument) for argument in container["args"]]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepure", *arguments, "--threads", "1"], env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        for probe in ("readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["port"] == 8080
            assert answers(f"http://127.0.0.1:{port}{asked['path']}")
        assert answers(f"http://127.0.0.1:{port}/v2/models/{service['metadata']['name']}/ready")
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:  # not listening, or not ready yet
            time.sleep(0.2)
    return False
