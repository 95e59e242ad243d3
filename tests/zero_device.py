"""A stand-in of the ZeroGPU device service: one GPU slot, spoken to by the real `spaces` package over HTTP.

With policy "keep" a worker may take the next task too; with "kill" it is killed when its task is done, as when another
Space takes the slot. The service does not know what a task does.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Lease:
    """One task that asked for the GPU, and how it ended: `failed` is None while it runs."""

    seconds: int
    visitor: str | None  # the token of the visitor whose quota pays
    failed: bool | None = None


class ZeroDevice(ThreadingHTTPServer):
    """The service on a free port of 127.0.0.1. Set `max_s`, `quota_s` or `closed` to have it refuse tasks."""

    def __init__(self, policy: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.policy = policy
        self.max_s = self.quota_s = 3600
        self.closed = False
        self.leases: list[Lease] = []
        self.most_at_once = 0
        self._open: dict[str, tuple[Lease, str]] = {}
        self._idle_task: str | None = None
        self._worker: int | None = None

    @property
    def url(self) -> str:
        """Where the service answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> ZeroDevice:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON body and headers for a request."""
        if path == "/startup-report":
            return 200, {}, {}
        if path == "/schedule":
            return self._schedule(query)
        if path == "/allow":
            self._worker = int(query["pid"])
            return 200, {}, {}
        if path == "/release":
            return self._release(query), {}, {}
        return 404, {}, {}

    def _schedule(self, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        seconds, task = int(query["durationSeconds"]), query["taskId"]
        if self.closed:
            return 503, {}, {}
        if seconds > self.max_s:
            return 429, {"left": self.max_s, "wait": "-PT1S"}, {"X-Approve-Result": "illegal-duration"}
        if seconds > self.quota_s:
            return 429, {"left": self.quota_s, "wait": "PT3H"}, {"X-Approve-Result": "quota-exceeded"}
        token, lease = secrets.token_hex(8), Lease(seconds, query.get("token"))
        self.leases.append(lease)
        self._open[token] = lease, task
        self.most_at_once = max(self.most_at_once, len(self._open))
        idle = self.policy == "keep" and self._idle_task == task
        return 200, {"idle": idle, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": token}, {}

    def _release(self, query: dict[str, str]) -> int:
        if query["allowToken"] not in self._open:
            return 404
        lease, task = self._open.pop(query["allowToken"])
        lease.failed = query["fail"] == "true"
        self._idle_task = None if lease.failed else task
        if self._worker and (lease.failed or self.policy == "kill"):
            with suppress(ProcessLookupError):  # it may have died by itself
                os.kill(self._worker, signal.SIGKILL)
            self._worker = None
        return 200


class _Handler(BaseHTTPRequestHandler):
    server: ZeroDevice

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        status, body, headers = self.server.answer(url.path, query)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""
