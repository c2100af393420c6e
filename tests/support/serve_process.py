"""``edgepure serve`` as its owner starts it: a process, its log, and a small client."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

from cli_process import environment


class Server:
    """``edgepure serve`` with its log, and a small client."""

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "edgepure", "serve", *arguments, "--port", "0", "--threads", "1"]
        self.process = subprocess.Popen(
            command, env={**environment(), **(env or {})}, stderr=subprocess.PIPE, text=True
        )
        self.events: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        ready = self.wait_for("ready")
        self.url, self.grpc = f"http://127.0.0.1:{ready['port']}", f"127.0.0.1:{ready['grpc_port']}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                with self._arrived:
                    self.events.append(json.loads(line))
                    self._arrived.notify_all()
        with self._arrived:
            self.events.append({"event": "closed"})
            self._arrived.notify_all()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first line of the log with this event."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.events if e["event"] in (event, "closed")]

        with self._arrived:
            assert self._arrived.wait_for(found, 240)
        assert found()[0]["event"] != "closed" or event == "closed", self.events
        return found()[0]

    def ask(
        self, path: str, body: bytes | dict[str, Any] | None = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, headers and body (from JSON where it is) of one request."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, found, text = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, found, text = error.code, error.headers, error.read()
        return status, found, json.loads(text) if "json" in found.get("Content-Type", "") else text

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(120)
