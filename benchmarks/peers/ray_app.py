"""A bundle behind Ray Serve: requests that wait together are purified to the end as one batch."""

from __future__ import annotations

import asyncio
import base64
import signal
import sys

import ray
from ray import serve
from starlette.requests import Request

BUNDLE, PRESET, VOTES, SLOTS, PORT, WORKERS = sys.argv[1:7]


@serve.deployment(ray_actor_options={"num_cpus": 1}, max_ongoing_requests=1000)
class Purified:
    """One purifier; a batch is one `classify`, in a thread of its own so that the next batch can be collected."""

    def __init__(self, bundle: str, preset: str, votes: int, slots: int) -> None:
        import edgepure  # here, in the process of the replica: the module itself cannot be sent

        self.purifier = edgepure.load(bundle, slots=slots, threads=1)
        self.preset, self.votes = preset, votes
        self.answer.set_max_batch_size(slots)

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.002)
    async def answer(self, images: list[bytes]) -> list[int]:
        results = await asyncio.to_thread(self.purifier.classify, images, self.preset, votes=self.votes)
        return [int(found.label) for found in results]

    async def __call__(self, request: Request) -> dict[str, int]:
        return {"label": await self.answer(base64.b64decode((await request.json())["image"]))}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(PORT)})
    serve.run(
        Purified.options(num_replicas=int(WORKERS)).bind(BUNDLE, PRESET, int(VOTES), int(SLOTS)),
        route_prefix="/classify",
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
