"""A line that can be cut: what stands between a browser and the studio when a phone loses its network."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Line:
    """Passes bytes between 127.0.0.1:`port` and a server. While it is cut, what is open ends and nothing new gets through."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", urlsplit(url).port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._is_cut = False
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """The network is gone."""
        self._is_cut = True
        while self._open:
            _end(self._open.pop())

    def mend(self) -> None:
        """It is back."""
        self._is_cut = False

    def close(self) -> None:
        """Nothing gets through any more, for good."""
        self.cut()
        _end(self._door)

    def _serve(self) -> None:
        with suppress(OSError):  # the door was closed
            while True:
                near, _ = self._door.accept()
                if self._is_cut:
                    _end(near)
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_pass, args=ends, daemon=True).start()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        _end(end)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def line(url: str) -> Iterator[Line]:
    """A line to the studio at `url` until the block ends."""
    made = Line(url)
    try:
        yield made
    finally:
        made.close()
