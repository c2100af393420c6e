"""Bundles with a task behind the protocol: boxes, label maps and vectors for clients, and what cannot be served."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from cli_process import environment, run
from codes import raises_code
from fake_triton import Request, opened, plug_in
from headless_bundle import make_headless_bundle
from serve_process import Server
from task_bundle import frames, make_task_bundle
from tiny_bundle import images

import edgepure
from edgepure.bundle.task import TASK_KINDS
from edgepure.serve import ModelSettings, write_triton_repository
from edgepure.serve.models import Model
from edgepure.serve.outputs import output_names

IMAGES = images(3, seed=2)
FRAME = (22, 36)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task_bundle(folder / kind, kind) for kind in TASK_KINDS}


@pytest.fixture(scope="module")
def framed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_bundle(tmp_path_factory.mktemp("framed") / "framed", "segmentation", FRAME)


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], bundles: dict[str, Path], framed: Path) -> Server:
    named = [f"{kind}={path}" for kind, path in {**bundles, "framed": framed}.items()]
    return start(*named, "--preset", "uniform", "--page", "--show", "probabilities", "--grpc-port", "0")


@pytest.fixture(scope="module", params=TASK_KINDS)
def model(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Iterator[Model]:
    found = Model(ModelSettings("m", bundles[request.param], preset="uniform", threads=1), frozenset({"probabilities"}))
    yield found
    found.close()


def test_a_service_answers_as_predict(bundles: dict[str, Path]) -> None:
    for kind, path in bundles.items():
        with edgepure.load(path, threads=1) as purifier:
            expected = [purifier.predict(image, "uniform", noise=5)[0] for image in IMAGES]
            with edgepure.Service(purifier, "uniform") as service:
                found = [future.result(60) for future in [service.submit(image, noise=5) for image in IMAGES]]
        for mine, theirs in zip(found, expected, strict=True):
            assert type(mine) is type(theirs), kind
            for name in ("boxes", "scores", "labels", "label_map", "confidence", "vector"):
                if hasattr(theirs, name):
                    np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), atol=1e-5)


def test_votes_that_end_when_a_label_is_settled_are_refused(bundles: dict[str, Path]) -> None:
    preset = {"method": {"method": "uniform", "t_star": 40}, "votes": {"sequential": {"max": 9}}}
    with edgepure.load(bundles["segmentation"], threads=1) as purifier, raises_code("E-task-votes"):
        edgepure.Service(purifier, preset)


def test_what_is_neither_is_not_served(tmp_path: Path) -> None:
    bundle = make_headless_bundle(tmp_path / "alone")
    with edgepure.load(bundle, threads=1) as purifier, raises_code("E-no-task"):
        edgepure.Service(purifier)
    with raises_code("E-no-task"):
        write_triton_repository(ModelSettings("alone", bundle), tmp_path / "models")
    done = run("serve", f"alone={bundle}", "--port", "0", "--json", env=environment())
    assert done.code != 0 and "E-no-task" in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_real_clients_get_boxes_maps_and_vectors(server: Server, kind: str) -> None:
    module = httpclient if kind == "http" else grpcclient
    address = server.url.removeprefix("http://") if kind == "http" else server.grpc
    with module.InferenceServerClient(address) as client:

        def infer(model: str) -> Any:
            tensor = module.InferInput("image", list(IMAGES.shape), "FP32")
            tensor.set_data_from_numpy(IMAGES)
            return client.infer(model, [tensor]).as_numpy

        found = infer("segmentation")
        assert found("label_map").dtype == np.uint8 and found("label_map").shape == (3, 16, 16)
        assert (found("label_map")[0] == 0).mean() > 0.9, "the first image is dark"
        assert found("confidence").min() >= 0.5 and found("label") is None
        found = infer("detection")
        count, boxes, labels, scores = (found(name) for name in ("count", "boxes", "labels", "scores"))
        assert count.shape == (3,) and boxes.shape == (3, count.max(), 4) and labels.shape == scores.shape
        for n, mine, sure in zip(count, labels, scores, strict=True):
            assert (mine[:n] >= 0).all() and (mine[n:] == -1).all() and (np.diff(sure[:n]) <= 0).all()
        assert labels[0][0] == 0, "the first image is dark"
        np.testing.assert_allclose(np.linalg.norm(infer("embedding")("vector"), axis=1), 1.0, rtol=1e-5)
        metadata = client.get_model_metadata("detection", **({} if kind == "http" else {"as_json": True}))
        shapes = {output["name"]: [int(n) for n in output["shape"]] for output in metadata["outputs"]}
        assert shapes == {"count": [-1], "boxes": [-1, -1, 4], "labels": [-1, -1], "scores": [-1, -1]}


def test_frames_are_served(server: Server, framed: Path) -> None:
    data = frames(3, FRAME)
    with httpclient.InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = httpclient.InferInput("image", list(data.shape), "FP32")
        tensor.set_data_from_numpy(data)
        found = client.infer("framed", [tensor]).as_numpy("label_map")
        (shape,) = (one["shape"] for one in client.get_model_metadata("framed")["inputs"])
    assert shape == [-1, 1, *FRAME] and found.shape == (3, *FRAME)
    with edgepure.load(framed, threads=1) as purifier:
        plain = np.stack([answer.label_map for answer in purifier.predict(data, purify=False)])
    assert (found == plain).mean() > 0.8, "a purified frame is much like the frame"
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 1, 16, 16], "data": IMAGES[:1].ravel().tolist()}
    status, _, body = server.ask("/v2/models/framed/infer", {"inputs": [entry]})
    assert status == 400 and body["code"] == "E-request-image" and "22, 36" in body["error"]


def test_plain_json_and_what_there_is_not(server: Server) -> None:
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 1, 16, 16], "data": IMAGES[:1].ravel().tolist()}
    status, _, body = server.ask(
        "/v2/models/segmentation/infer", {"inputs": [entry], "outputs": [{"name": "label_map"}]}
    )
    assert status == 200 and body["outputs"][0]["datatype"] == "UINT8" and len(body["outputs"][0]["data"]) == 256
    status, _, body = server.ask("/v2/models/segmentation/infer", {"inputs": [entry], "outputs": [{"name": "label"}]})
    assert status == 400 and body["code"] == "E-request-output" and "label_map" in body["error"]
    _, _, metadata = server.ask("/v2/models/detection")
    assert metadata["parameters"]["answers"] == "detection" and metadata["parameters"]["classes"] == ["dark", "bright"]


def test_the_interface_describes_all_kinds(server: Server, bundles: dict[str, Path]) -> None:
    _, _, document = server.ask("/openapi.json")
    asked = document["components"]["schemas"]["InferRequest"]["properties"]["outputs"]["items"]["properties"]["name"]
    assert {"label", "boxes", "labels", "count", "label_map", "vector", "scores", "confidence"} <= set(asked["enum"])
    assert "scores" not in output_names(frozenset()) and "boxes" in output_names(frozenset())
    for kind, path in bundles.items():
        _, _, metadata = server.ask(f"/v2/models/{kind}")
        assert {output["name"] for output in metadata["outputs"]} <= set(asked["enum"]), path


def test_the_page_shows_what_was_found(server: Server) -> None:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(np.rint(255 * IMAGES[0, 0]).astype(np.uint8)).save(file, "PNG")
    found = {"detection": "dark", "segmentation": "dark", "embedding": "16 numbers", "framed": "dark"}
    for kind, words in found.items():
        status, _, body = server.ask(f"/v2/models/{kind}/pictures", file.getvalue())
        assert status == 200 and words in body["answer"], body
        assert {"as it came", "purified"} <= set(body["pictures"])
        for uri in body["pictures"].values():
            size = FRAME[::-1] if kind == "framed" else (16, 16)
            assert Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))).size == size
    assert len(server.ask("/v2/models/detection/pictures", file.getvalue())[2]["pictures"]) == 3


def test_what_is_made_is_what_is_announced(model: Model) -> None:
    results = [model.service.submit(image).result(60) for image in IMAGES]
    for output in model.outputs:
        tensor = np.asarray(output.make(results))
        assert tensor.shape[0] == 3 and len(tensor.shape) == 1 + len(output.shape)
        assert all(want in (-1, have) for want, have in zip(output.shape, tensor.shape[1:], strict=True))
        assert tensor.dtype == {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}[output.datatype]


def test_a_self_test_of_a_frame_has_the_time_of_its_tiles(
    framed: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.tiles == 1
    served = Model(ModelSettings("m", framed, preset="uniform", votes=3, threads=1))
    served.close()
    assert served.tiles == 6
    monkeypatch.setattr(model, "probe", Future)
    with raises_code("E-serve-selftest-late"):
        model._prove(0.001)


def test_nothing_found_is_an_answer_too(bundles: dict[str, Path]) -> None:
    from edgepure.purify.tasks import Detection

    with edgepure.load(bundles["detection"], threads=1) as purifier:
        found = purifier.predict(IMAGES[:1], "uniform", noise=1)[0]
    assert isinstance(found, Detection)
    none = Detection(
        boxes=found.boxes[:0], scores=found.scores[:0], labels=found.labels[:0], class_names=(), name="0", levels={},
        unet_calls=1, seconds=0.0, image=found.image,
    )  # fmt: skip
    model = Model(ModelSettings("m", bundles["detection"], preset="uniform", threads=1))
    try:
        tensors = {output.name: output.make([none]) for output in model.outputs}
    finally:
        model.close()
    assert tensors["count"].tolist() == [0] and tensors["labels"].tolist() == [[-1]]
    assert tensors["boxes"].shape == (1, 1, 4) and "scores" not in tensors


@pytest.mark.parametrize("kind", [*TASK_KINDS, "framed"])
def test_triton_answers_with_the_task(
    monkeypatch: pytest.MonkeyPatch, bundles: dict[str, Path], framed: Path, kind: str, tmp_path: Path
) -> None:
    plug_in(monkeypatch)
    settings = ModelSettings(kind, {**bundles, "framed": framed}[kind], preset="uniform", threads=1)
    place = write_triton_repository(settings, tmp_path, show=["probabilities"])
    text = (place / "config.pbtxt").read_text()
    for line in {
        "segmentation": ['name: "label_map" data_type: TYPE_UINT8 dims: [16, 16]'],
        "detection": [
            'name: "boxes" data_type: TYPE_FP32 dims: [-1, 4]',
            'name: "count" data_type: TYPE_INT64 dims: [1]',
        ],
        "embedding": ['name: "vector" data_type: TYPE_FP32 dims: [-1]'],
        "framed": ['name: "image" data_type: TYPE_FP32 dims: [1, 22, 36]', "TYPE_UINT8 dims: [22, 36]"],
    }[kind]:
        assert line in text
    served = opened(place)
    try:
        (response,) = served.execute([Request(image=frames(3, FRAME) if kind == "framed" else IMAGES)]) or []
    finally:
        served.finalize()
    assert response.error is None and all(len(value) == 3 for value in response.outputs.values())
    if kind == "detection":
        assert response.outputs["count"].shape == (3, 1)
        assert response.outputs["boxes"].shape == (3, response.outputs["count"].max(), 4)
    json.dumps({name: value.tolist() for name, value in response.outputs.items()})
