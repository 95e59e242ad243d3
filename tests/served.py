"""The studio as its users have it: `python app.py` in its own process group on 127.0.0.1, and a Chromium to visit it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync "
    "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"  # a microphone that beeps
).split()


@dataclass(frozen=True)
class Served:
    """A running studio. `scratch` is where its requests work, `log` what it printed, `pid` its main process."""

    url: str
    pid: int
    scratch: Path
    log: Path

    def left_behind(self) -> list[str]:
        """What requests have left in the scratch folder."""
        return [entry.name for entry in self.scratch.iterdir()]


@contextmanager
def studio(folder: Path, script: str = "app.py", **environment: str) -> Iterator[Served]:
    """Serve the demo checkpoint by a script of the repository, with all its files under `folder`, until the block ends."""
    port, log = _free_port(), folder / "studio.log"
    own = {
        "ACE_MODEL": "demo",
        "ACE_PORT": str(port),
        "TMPDIR": str(folder),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, script],
            cwd=ROOT,
            env={**os.environ, **own, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = Served(f"http://127.0.0.1:{port}", process.pid, folder / "ace-studio", log)
    try:
        _wait_for(served, process)
        yield served
    finally:
        _end(process)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium of this machine, as a Playwright browser; without one, the test that asks for it is skipped."""
    import pytest
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.skip("there is no chromium on this machine")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@contextmanager
def page(folder: Path, code: str) -> Iterator[tuple[str, Any]]:
    """The address of a page of a test's own, served from its code in `folder`, and a browser to visit it."""
    (folder / "page.py").write_text(code, encoding="utf-8")
    with chromium() as browser, studio(folder, str(folder / "page.py")) as running:
        yield running.url, browser


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(served: Served, process: subprocess.Popen, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(served.url, timeout=seconds).is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the studio did not come up:\n{served.log.read_text()[-2000:]}")


def _end(process: subprocess.Popen) -> None:
    # The whole group, since workers of ZeroGPU outlive their parent.
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
