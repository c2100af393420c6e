"""Servers that answer every request at once with the same label: what uvicorn and grpcio themselves take."""

from __future__ import annotations

import sys
from typing import Any

import grpc.aio
import uvicorn
import uvloop
from tritonclient.grpc import service_pb2, service_pb2_grpc

PORT, GRPC_PORT = sys.argv[1:3]
ANSWER = b'{"model_name":"m","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[3]}]}'


async def rest(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the body, and answer."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


class Bare(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The one method that is asked."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        label = {"name": "label", "datatype": "INT64", "shape": [1], "contents": {"int64_contents": [3]}}
        return service_pb2.ModelInferResponse(model_name="m", outputs=[label])


async def main() -> None:
    """Both, until the process is ended."""
    remote = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Bare(), remote)
    remote.add_insecure_port(f"127.0.0.1:{GRPC_PORT}")
    await remote.start()
    config = uvicorn.Config(rest, port=int(PORT), lifespan="off", log_config=None, access_log=False)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main())
