"""What the clients of a soak send, and what has to come back.

A request knows its own answer: labels, probabilities and purified images were computed beforehand, in this process,
from the same seeds.
"""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from PIL import Image

import edgepure

from .engine import seed_of

#: Images a request; small ones are the most.
BATCHES = (1, 1, 1, 1, 2, 3, 5, 8, 16, 48)
#: Purified images differ by this much at most: the sums of a call depend on how many images share it.
NEAR = 2e-4
LENGTH = "Inference-Header-Content-Length"


@dataclass
class Known:
    """Images, and the answers of every model to them.

    Attributes:
        pixels: ``[N, H, W]`` uint8.
        results: by model, of every image.
    """

    pixels: np.ndarray
    results: dict[str, list[edgepure.Result]]

    @classmethod
    def of(cls, bundle: Any, images: np.ndarray, presets: dict[str, str], votes: int) -> Known:
        """Compute them: ``images`` ``[N, 1, H, W]`` in [0, 1]."""
        pixels = np.rint(255.0 * images[:, 0]).astype(np.uint8)
        exact = pixels[:, None].astype(np.float32) / np.float32(255.0)
        with edgepure.load(bundle, threads=1) as purifier:
            results = {
                name: [purifier.run(one[None], preset, votes=votes, noise=seed_of(one))[0] for one in exact]
                for name, preset in presets.items()
            }
        return cls(pixels, results)


@dataclass
class Asked:
    """One request.

    Attributes:
        kind: ``good``, ``bad``, ``short`` (a deadline that may be too short) or ``vanishing``.
        model, chosen: whose answers, and to which images.
        body, headers: over REST.
        inputs: over gRPC.
        codes: what may be said of a bad one.
    """

    kind: str
    model: str
    chosen: list[int]
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    inputs: list[Any] | None = None
    codes: frozenset[str] = frozenset()


class Requests:
    """Makes requests at random."""

    def __init__(self, known: Known, seed: int) -> None:
        self.known, self.random = known, Random(seed)

    def next(self) -> Asked:
        """One in ten is bad, one in twenty has a short deadline, one in twenty vanishes."""
        draw = self.random.random()
        if draw < 0.10:
            return self._bad()
        asked = self._good()
        if draw < 0.15:
            asked.kind = "vanishing"
        elif draw < 0.20 and asked.inputs is None:
            asked.kind = "short"
            asked.headers["X-Request-Timeout"] = f"{self.random.uniform(0.001, 0.2):.4f}"
        return asked

    def _good(self) -> Asked:
        model = self.random.choice(list(self.known.results))
        chosen = self.random.choices(range(len(self.known.pixels)), k=self.random.choice(BATCHES))
        datatype = self.random.choice(("FP32", "UINT8", "BYTES"))
        way = self.random.choice(("json", "binary", "grpc"))
        pixels = self.known.pixels[chosen]
        if datatype == "FP32":
            tensor = pixels[:, None].astype(np.float32) / np.float32(255.0)
        elif datatype == "UINT8":
            tensor = pixels[..., None]
        else:
            tensor = np.array([_png(one) for one in pixels], object)
        if way == "grpc":
            grpc_input = triton.InferInput("image", list(tensor.shape), datatype)
            grpc_input.set_data_from_numpy(tensor)
            return Asked("good", model, chosen, inputs=[grpc_input])
        if way == "binary":
            rest_input = triton_http.InferInput("image", list(tensor.shape), datatype)
            rest_input.set_data_from_numpy(tensor, binary_data=True)
            body, length = triton_http.InferenceServerClient.generate_request_body([rest_input])
            return Asked("good", model, chosen, body, {LENGTH: str(length)})
        data = [base64.b64encode(one).decode() for one in tensor] if datatype == "BYTES" else tensor.ravel().tolist()
        entry = {"name": "image", "datatype": datatype, "shape": list(tensor.shape), "data": data}
        return Asked("good", model, chosen, json.dumps({"inputs": [entry]}).encode())

    def _bad(self) -> Asked:
        """A request that no server may answer, and what it has to be told."""
        side = self.known.pixels.shape[1:]
        shape = [1, 1, *side]

        def one(data: Any, **more: Any) -> bytes:
            entry = {"name": "image", "datatype": "FP32", "shape": shape, "data": data, **more}
            return json.dumps({"inputs": [entry]}).encode()

        gray = [0.5] * int(np.prod(side))
        noise = base64.b64encode(bytes(self.random.randrange(256) for _ in range(100))).decode()
        cut = base64.b64encode(_png(self.known.pixels[0])[:60]).decode()
        model = self.random.choice(list(self.known.results))
        kinds: list[tuple[str, bytes, dict[str, str], str]] = [
            (model, b"\xff\x00 no JSON", {}, "E-request-json"),
            (model, one(gray[1:]), {}, "E-request-data"),
            (model, one([7.0] * len(gray)), {}, "E-image-range"),
            (model, one([noise], datatype="BYTES", shape=[1]), {}, "E-image-unreadable E-image-decode"),
            (model, one([cut], datatype="BYTES", shape=[1]), {}, "E-image-unreadable E-image-decode"),
            (model, one(gray, shape=[1, 1, side[1] * 2, side[0] // 2]), {}, "E-request-image"),
            (model, one(gray * 65, shape=[65, 1, *side]), {}, "E-request-images"),
            (model, one(gray), {"X-Request-Timeout": "soon"}, "E-request-number"),
            (model, one(gray), {LENGTH: "99999999"}, "E-request-header"),
            ("nobody", one(gray), {}, "E-model-unknown"),
        ]
        name, body, headers, codes = self.random.choice(kinds)
        return Asked("bad", name, [], body, headers, codes=frozenset(codes.split()))

    def wrong(self, asked: Asked, read: Any) -> str:
        """What is wrong with an answer; ``read`` gives an output by its name. Empty: nothing."""
        results = [self.known.results[asked.model][i] for i in asked.chosen]
        labels = read("label")
        if labels is None or labels.tolist() != [one.label for one in results]:
            return f"labels {None if labels is None else labels.tolist()}, not {[one.label for one in results]}"
        names = [name.decode() if isinstance(name, bytes) else name for name in read("class_name").tolist()]
        if names != [one.class_name for one in results]:
            return "class names are not those of the labels"
        for output, wanted in (
            ("probabilities", np.stack([one.probabilities for one in results])),
            ("purified", np.stack([one.image for one in results])),
        ):
            found = read(output)
            if found is None or found.shape != wanted.shape:
                return f"{output} has another shape"
            if (far := float(np.abs(found - wanted).max())) > NEAR:
                return f"{output} differs by {far:.3g}"
        return ""


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
