"""A bundle behind LitServe: requests that wait together are purified to the end as one batch."""

from __future__ import annotations

import base64
import sys

import litserve

import edgepure

BUNDLE, PRESET, VOTES, SLOTS, PORT, WORKERS = sys.argv[1:7]


class Purified(litserve.LitAPI):
    """One purifier; a batch is one `classify`."""

    def setup(self, device: str) -> None:
        self.purifier = edgepure.load(BUNDLE, slots=int(SLOTS), threads=1)

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, inputs: list[bytes]) -> list[int]:
        return [int(found.label) for found in self.purifier.classify(inputs, PRESET, votes=int(VOTES))]

    def unbatch(self, output: list[int]) -> list[int]:
        return output

    def encode_response(self, output: int) -> dict[str, int]:
        return {"label": output}


if __name__ == "__main__":
    api = Purified(max_batch_size=int(SLOTS), batch_timeout=0.002, api_path="/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(WORKERS), timeout=60)
    server.run(host="127.0.0.1", port=int(PORT), generate_client_file=False, log_level="warning")
