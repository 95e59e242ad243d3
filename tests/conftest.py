"""A clean, closed room for every test: no settings of this machine, no network but 127.0.0.1."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODEL = os.environ.get("ACE_MODEL", "")  # for `pytest -m gpu` alone
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
for name in [n for n in os.environ if n.startswith(("ACE_", "SPACE", "GRADIO_SERVER")) and n != "ACE_REFERENCE"]:
    del os.environ[name]

import pytest

_connect = socket.socket.connect


def _local_only(self: socket.socket, address) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(101, f"tests may not reach {address[0]}")
    return _connect(self, address)


@pytest.fixture(autouse=True)
def closed_room(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(socket.socket, "connect", _local_only)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file as a visitor might send it; its path."""

    def write(content: bytes, name: str = "upload") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The studio on the demo checkpoint, served for the tests of one file."""
    import served  # late: a machine with a GPU may have no web libraries

    with served.studio(tmp_path_factory.mktemp("studio")) as running:
        yield running


@pytest.fixture(scope="module")
def client(studio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A program that visits the studio."""
    from gradio_client import Client

    downloads = str(tmp_path_factory.mktemp("downloads"))
    visitor = Client(studio.url, download_files=downloads, verbose=False, analytics_enabled=False)
    yield visitor
    visitor.close()
