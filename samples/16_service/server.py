"""The digits as an HTTP service: many clients share one purifier's UNet calls; SIGTERM loses no answer."""

import argparse
import signal
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
from answers import Handler

import edgepure
from edgepure.files.atomic import write_text

CONNECTIONS = 128  # at a time: each one costs a thread


class Server(ThreadingHTTPServer):
    """Waits at its end for the clients that are being answered."""

    daemon_threads = False
    request_queue_size = CONNECTIONS
    service: edgepure.Service

    def verify_request(self, request: object, client_address: object) -> bool:
        return threading.active_count() <= CONNECTIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=edgepure.demo_bundle())
    parser.add_argument("--preset", help="default: the bundle's own")
    parser.add_argument("--votes", type=int, default=3)
    parser.add_argument("--waiting", type=int, default=64, help="images that may wait; more are answered with 503")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    parser.add_argument("--url-file", type=Path, help="written when the service is ready")
    options = parser.parse_args()
    with (
        edgepure.load(options.bundle, threads=1) as purifier,
        edgepure.Service(purifier, options.preset, votes=options.votes, waiting=options.waiting) as service,
    ):
        service.submit(np.zeros(purifier.image_shape, np.float32)).result()  # engines prepare themselves at first use
        # Its end: no more connections, then the answers that are owed; after it, the service's and the purifier's.
        with Server(("127.0.0.1", options.port), Handler) as server:
            server.service = service
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
            if options.url_file:
                write_text(options.url_file, f"http://127.0.0.1:{server.server_port}")
            server.serve_forever(poll_interval=0.1)
    print(f"ended: {service.counters.jobs} purifications were finished")


if __name__ == "__main__":
    main()
