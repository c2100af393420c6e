"""Many clients at once, and some that are refused. Takes the server's address."""

import io
import json
import struct
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from edgepure import demo_images

url = sys.argv[1]
digits = demo_images()


def png(image: np.ndarray) -> bytes:
    """A ``[1, H, W]`` image in [0, 1] as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def ask(path: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url + path, data, {name.replace("_", "-"): text for name, text in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def infer(file: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    """One image file in the protocol's binary form: JSON first, then the file with its length before it."""
    raw = struct.pack("<I", len(file)) + file
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [image], "outputs": [{"name": "class_name"}]}).encode()
    length = {"Inference_Header_Content_Length": str(len(head))}
    return ask("/v2/models/digits/infer", head + raw, **length, **headers)


with ThreadPoolExecutor(16) as clients:
    answers = list(clients.map(lambda image: infer(png(image)), digits.adversarial))
names = [body["outputs"][0]["data"][0] for _, body in answers]
print(f"{len(answers)} attacked digits from 16 clients: all answered: {all(code == 200 for code, _ in answers)}")
print(f"most of them are seen as what they are: {(np.array(names, int) == digits.labels).mean() > 0.8}")

for words, (code, body) in (
    ("not an image", infer(b"hello")),
    ("another size", infer(png(np.zeros((1, 32, 32))))),
    ("no time at all", infer(png(digits.clean[0]), X_Request_Timeout="0.000001")),
    ("a gigabyte is announced", ask("/v2/models/digits/infer", b"", Content_Length="1000000000")),
    ("a client unloads the model", ask("/v2/repository/models/digits/unload", b"")),
):
    print(f"{words}: {code} {body['code']}")
print(f"ready: {ask('/v2/health/ready')}")
