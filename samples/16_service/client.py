"""Many clients at once, and some that are refused. Takes the service's URL."""

import io
import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from edgepure.demo import demo_images

url = sys.argv[1]
digits = demo_images()


def png(image: np.ndarray) -> bytes:
    """A ``[1, H, W]`` image in [0, 1] as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def ask(path: str, data: bytes | None = None, **headers: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


with ThreadPoolExecutor(16) as clients:
    answers = list(clients.map(lambda image: ask("/classify", png(image)), digits.adversarial))
right = [body["label"] == str(truth) for (_, body), truth in zip(answers, digits.labels, strict=True)]
print(f"{len(answers)} attacked digits from 16 clients: all answered: {all(code == 200 for code, _ in answers)}")
print(f"most of them are seen as what they are: {np.mean(right) > 0.8}")

image = png(digits.clean[0])
for words, path, data, headers in (
    ("a client chooses the seed", "/classify?seed=1", image, {}),
    ("not an image", "/classify", b"hello", {}),
    ("another size", "/classify", png(np.zeros((1, 32, 32))), {}),
    ("a gigabyte is announced", "/classify", b"", {"Content-Length": "1000000000"}),
):
    code, body = ask(path, data, **headers)
    print(f"{words}: {code}, {body['error']}")
print(f"health: {ask('/health')}")
