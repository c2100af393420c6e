"""What the service answers over HTTP: limits first, then one image, and nothing that helps an attacker."""

import json
from concurrent.futures import TimeoutError as TooSlow
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import edgepure
from edgepure.errors import BusyError, ImageError

MAX_BYTES = 1 << 20  # of an image file; a larger one is refused unread
PATIENCE = 10.0  # seconds: with a client that sends slowly, and with the purification


class Handler(BaseHTTPRequestHandler):
    """One request. ``server.service`` is the `edgepure.Service` that all of them share."""

    timeout = PATIENCE

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, waiting=self.server.service.waiting)
        else:
            self.answer(404, error="ask for /health, or post an image file to /classify")

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path != "/classify":  # a client who chose the seed would know the noise
            self.answer(404, error="post an image file to /classify; there are no parameters, and no seed")
        elif not (size.isascii() and size.isdigit()):
            self.answer(411, error="say in Content-Length how many bytes the image has")
        elif len(size) > 9 or int(size) > MAX_BYTES:
            self.answer(413, error=f"an image may have {MAX_BYTES} bytes")
        else:
            self.classify(self.rfile.read(int(size)))

    def classify(self, data: bytes) -> None:
        try:
            future = self.server.service.submit(data)
            try:
                result = future.result(PATIENCE)
            finally:
                future.cancel()  # if it still waits, nobody waits for it
            # Score norm, votes and purified image stay here: they tell of the noise.
            self.answer(200, label=result.class_name, probability=round(float(result.probabilities[result.label]), 3))
        except ImageError as error:
            self.answer(400, error=str(error))
        except (BusyError, TooSlow):
            self.answer(503, error="busy, try again in a second")
        except edgepure.EdgepureError as error:
            self.log_error("%s", error)
            self.answer(500, error="the purification failed")

    def answer(self, code: int, **body: object) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        with suppress(ConnectionError):  # the client may have gone
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())
