"""The server as its clients and its owner meet it: real clients, a real process, real signals."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from cli_process import environment, run
from PIL import Image
from serve_process import Server

from edgepure import VoteSpec
from edgepure.bundle.edit import edit_bundle
from edgepure.demo import demo_images
from edgepure.serve.server import _bind
from edgepure.serve.settings import ServeSettings

DIGITS = demo_images()
ONE = DIGITS.clean[:1]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def request_of(images: np.ndarray, **more: Any) -> dict[str, Any]:
    entry = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
    return {"inputs": [entry], **more}


# ---- clients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_real_client_gets_the_right_answers(server: Server, kind: str) -> None:
    module = httpclient if kind == "http" else grpcclient
    address = server.url.removeprefix("http://") if kind == "http" else server.grpc
    with module.InferenceServerClient(address) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("digits", "1")
        found = client.get_model_metadata("digits", **({} if kind == "http" else {"as_json": True}))
        assert found["name"] == "digits" and found["versions"] == ["1", "2"]
        tensor = module.InferInput("image", [8, 1, 16, 16], "FP32")
        tensor.set_data_from_numpy(DIGITS.adversarial[:8])
        answer = client.infer("digits", [tensor], request_id="seven")
        assert (answer.as_numpy("label") == DIGITS.labels[:8]).sum() >= 4  # the noise is secret
        assert answer.as_numpy("probabilities").shape == (8, 10)
        assert answer.as_numpy("purified").shape == (8, 1, 16, 16)
        files = module.InferInput("image", [2], "BYTES")
        files.set_data_from_numpy(np.array([png(image) for image in DIGITS.clean[:2]], object))
        wanted = [module.InferRequestedOutput("class_name")]
        answer = client.infer("digits", [files], model_version="2", outputs=wanted)
        assert [name.decode() for name in answer.as_numpy("class_name")] == [str(n) for n in DIGITS.labels[:2]]
        assert answer.as_numpy("label") is None


def test_plain_json(server: Server) -> None:
    status, _, answer = server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:1], id="a"))
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert status == 200 and answer["id"] == "a" and answer["model_version"] == "2"
    assert outputs["label"] == {"name": "label", "datatype": "INT64", "shape": [1], "data": [int(DIGITS.labels[0])]}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v2/models/cats/infer", request_of(DIGITS.clean[:1]), 404, "E-model-unknown"),
        ("/v2/models/digits/versions/9/infer", request_of(DIGITS.clean[:1]), 404, "E-model-unknown"),
        ("/v2/models/digits/infer", b"hello", 400, "E-request-json"),
        ("/v2/models/digits/infer", request_of(DIGITS.clean[:1, :, :8]), 400, "E-request-image"),
        (
            "/v2/models/digits/infer",
            request_of(ONE, outputs=[{"name": "score_norm"}]),
            400,
            "E-request-output",
        ),
        ("/v2/models/digits/infer", request_of(ONE, parameters={"timeout": -1}), 400, "E-request-number"),
        (
            "/v2/models/digits/infer",
            request_of(ONE, parameters={"priority": 7}),
            400,
            "E-request-priority",
        ),
        ("/v2/models/digits/infer", b"x" * (17 << 20), 413, "E-body-size"),
    ],
)
def test_bad_requests_are_told_so(server: Server, path: str, body: Any, status: int, code: str) -> None:
    found, _, answer = server.ask(path, body)
    assert (found, answer["code"]) == (status, code) and "error" in answer


def test_pixels_out_of_range_are_the_clients_fault(server: Server) -> None:
    status, _, answer = server.ask("/v2/models/digits/infer", request_of(3.0 * DIGITS.clean[:1]))
    assert status == 400 and answer["code"].startswith("E-image")


def test_a_deadline_that_cannot_be_met_is_refused(server: Server) -> None:
    server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:1]))  # its pace is known
    status, _, answer = server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:64]), X_Request_Timeout="0.0001")
    assert (status, answer["code"]) == (504, "E-deadline-short")
    with grpcclient.InferenceServerClient(server.grpc) as client:
        tensor = grpcclient.InferInput("image", [64, 1, 16, 16], "FP32")
        tensor.set_data_from_numpy(np.repeat(DIGITS.clean[:1], 64, axis=0))
        with pytest.raises(Exception, match=r"(?i)deadline|overdue"):
            client.infer("digits", [tensor], client_timeout=0.001)


def test_the_interface_is_described(server: Server) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    _, _, document = server.ask("/openapi.json")
    validator.validate(document)
    for path, operations in document["paths"].items():
        for method in operations:
            status, _, _ = server.ask(
                path.format(name="digits", version="1"), b"" if method == "post" else None, method.upper()
            )
            assert status not in (404, 405, 500), path


def test_metrics_say_what_happened(server: Server) -> None:
    server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:3]))
    server.ask("/v2/models/whatever/infer", request_of(DIGITS.clean[:3]))
    text = server.ask("/metrics")[2].decode()
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    labels = 'model="digits",version="2"'
    assert float(samples[f"edgepure_images_total{{{labels}}}"]) >= 3
    assert float(samples[f"edgepure_unet_calls_total{{{labels}}}"]) >= 9
    assert 0.0 < float(samples[f"edgepure_slots_busy_ratio{{{labels}}}"]) <= 1.0
    assert "whatever" not in text, "names that anybody may make up would fill the memory"
    for name in ("request_seconds", "queue_seconds", "purification_seconds"):
        assert f"edgepure_{name}_bucket" in text


def test_a_client_that_vanishes_frees_its_slots(server: Server) -> None:
    body = json.dumps(request_of(np.repeat(DIGITS.clean[:1], 60, axis=0))).encode()
    for _ in range(8):
        client = socket.create_connection(server.url.removeprefix("http://").split(":"))
        head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        time.sleep(0.02)
        client.close()
    status, _, _ = server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:1]))
    assert status == 200
    assert 'outcome="cancelled"' in server.ask("/metrics")[2].decode()


# ---- the owner ------------------------------------------------------------------------------------------------------


def test_models_are_replaced_without_dropping_a_request(server: Server) -> None:
    statuses: list[int] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            statuses.append(server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:2]))[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            status, _, _ = server.ask("/v2/repository/models/digits/load", b"", Authorization="Bearer owner")
            assert status == 200
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert statuses and set(statuses) == {200}


def test_only_the_owner_loads(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "owner"}):
        assert server.ask("/v2/repository/models/digits/unload", b"", **headers)[0] == 401
    assert server.ask("/v2/repository/models/cats/load", b"", Authorization="Bearer owner")[0] == 404


def test_the_page_shows_pictures(server: Server) -> None:
    assert b"<!doctype html>" in server.ask("/")[2]
    status, _, answer = server.ask("/v2/models/digits/pictures", png(DIGITS.adversarial[0]))
    assert status == 200 and set(answer["pictures"]) >= {"as it came", "purified"}


def test_closed_by_default(start: Callable[..., Server], digits: Path, tmp_path: Path) -> None:
    """A token that fails closed, labels alone, no page, no loading; and its end."""
    (tmp_path / "token").write_text("secret\n")
    bundle = tmp_path / "bundle"
    shutil.copytree(digits, bundle)
    server = start(str(bundle), "--token-file", str(tmp_path / "token"), "--votes", "1", "--grpc-port", "-1")
    infer = "/v2/models/bundle/infer"
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer secre"},
        {"Authorization": "Basic secret"},
    ):
        assert server.ask(infer, request_of(DIGITS.clean[:1]), **headers)[0] == 401
    status, _, answer = server.ask(infer, request_of(DIGITS.clean[:1]), Authorization="Bearer secret")
    assert status == 200 and [output["name"] for output in answer["outputs"]] == ["label", "class_name"]
    assert server.ask("/")[0] == 404
    assert server.ask("/v2/repository/models/bundle/load", b"", Authorization="Bearer secret")[0] == 403
    assert server.ask("/v2/health/ready")[0] == 200
    assert server.end() == 0
    assert [event["event"] for event in server.events][-2:] == ["ended", "closed"]


def test_votes_without_a_settled_answer_say_so(start: Callable[..., Server], digits: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(digits, bundle)
    with edit_bundle(bundle) as edit:
        # Two votes are never enough for one wrong answer in a million.
        votes = VoteSpec(sequential={"alpha": 1e-6, "max": 2})
        careful = edit.manifest.presets["uniform"].model_copy(update={"votes": votes})
        presets = {**edit.manifest.presets, "careful": careful}
        edit.manifest = edit.manifest.model_copy(update={"presets": presets})
    server = start(str(bundle), "--preset", "careful", "--grpc-port", "-1")
    outputs = server.ask("/v2/models/bundle")[2]["outputs"]
    assert [output["name"] for output in outputs] == ["label", "class_name", "abstained"]
    _, _, answer = server.ask("/v2/models/bundle/infer", request_of(DIGITS.clean[:2]))
    assert answer["outputs"][2] == {"name": "abstained", "datatype": "BOOL", "shape": [2], "data": [True, True]}
    assert re.search(r"edgepure_abstained_total\{[^}]*\} 2\.0", server.ask("/metrics")[2].decode())
    assert server.end() == 0


def test_the_second_signal_ends_at_once(start: Callable[..., Server], digits: Path) -> None:
    server = start(str(digits), "--grpc-port", "-1", "--drain", "60")
    with socket.create_connection(server.url.removeprefix("http://").split(":")) as slow:
        slow.sendall(b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert server.end() == 128 + signal.SIGTERM


def test_lanes_are_processes_that_come_and_go_with_the_server(start: Callable[..., Server], digits: Path) -> None:
    """One that is killed is started again, and the server stays ready; all of them end with it."""

    def lanes() -> set[int]:
        asked = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True)
        return {int(number) for number in asked.stdout.split()}

    server = start(str(digits), "--lanes", "2", "--votes", "1", "--grpc-port", "-1")
    first = lanes()
    assert len(first) == 2
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 60
    while len(lanes() - {victim}) < 2:
        assert time.monotonic() < end and server.ask("/v2/health/ready")[0] == 200
    for _ in range(4):
        assert server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:8]))[0] == 200
    used = re.search(r"edgepure_lanes_resident_memory_bytes\{[^}]*\} (\S+)", server.ask("/metrics")[2].decode())
    assert used is not None and float(used[1]) > 2 * 30e6
    last = lanes()
    assert server.end() == 0
    assert not any(Path(f"/proc/{process}").exists() for process in last)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "E-bundle-missing"),
        (["a b={digits}"], "E-serve-model"),
        (["a={digits}", "a={digits}"], "E-serve-model"),
        (["{digits}", "--show", "everything"], "E-serve-show"),
        (["{digits}", "--token-file", "/nowhere"], "E-serve-token"),
        (["{digits}", "--preset", "nothing"], "E-"),
    ],
)
def test_an_owner_is_told_what_is_wrong(digits: Path, arguments: list[str], words: str) -> None:
    found = run("serve", *(word.format(digits=digits) for word in arguments), "--port", "0", "--json")
    assert found.code != 0 and found.json["error"]["code"].startswith(words)


def test_an_address_in_use_is_one_sentence(digits: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = run("serve", str(digits), "--port", str(port), "--grpc-port", "-1", "--json")
        assert found.code == 1 and found.json["error"]["code"] == "E-serve-address"


def test_an_answer_in_two_parts_does_not_wait_for_an_acknowledgement() -> None:
    """A socket whose protocol is not named keeps Nagle's algorithm on: 40 ms for every answer."""
    found: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(accept, sock=_bind(ServeSettings(port=0))) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            await reader.read()
            writer.close()

    asyncio.run(ask())
    assert found and all(found)


def test_an_empty_token_does_not_let_everybody_in(digits: Path) -> None:
    found = run("serve", digits, "--json", env=environment(EDGEPURE_TOKEN=""))
    assert found.code == 2 and found.json["error"]["code"] == "E-serve-empty"


def test_sigterm_loses_no_answer(start: Callable[..., Server], digits: Path) -> None:
    server = start(f"digits={digits}", "--votes", "60", "--grpc-port", "-1")
    body = json.dumps(request_of(DIGITS.clean[:1])).encode()
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    clients = [socket.create_connection(server.url.removeprefix("http://").split(":")) for _ in range(4)]
    for client in clients:
        client.sendall(head + body)
    assert server.ask("/v2/health/live")[0] == 200
    assert server.end() == 0
    assert [client.recv(15) for client in clients] == [b"HTTP/1.1 200 OK"] * len(clients)


def test_whoever_is_accepted_is_answered_and_the_others_at_once(start: Callable[..., Server], digits: Path) -> None:
    server = start(f"digits={digits}", "--votes", "60", "--waiting", "2", "--grpc-port", "-1")
    with ThreadPoolExecutor(12) as clients:
        found = list(
            clients.map(lambda _: server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:1])), range(12))
        )
    codes = [status for status, _, _ in found]
    assert set(codes) == {200, 503} and codes.count(200) >= 2
    assert all(headers["Retry-After"] == "1" for status, headers, _ in found if status == 503)
    assert server.ask("/v2/models/digits/infer", request_of(DIGITS.clean[:1]))[0] == 200, "it is not busy any more"
