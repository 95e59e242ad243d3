"""What is made of a take on ZeroGPU: stems in a worker, everything else beside it, all from the session's own file."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gradio_client import handle_file
from test_gate import Gate, gate, visitor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU and its package are for Linux only")
assert gate  # a fixture


def test_stems_are_made_in_a_worker_of_the_sessions_own_take(gate: Gate, tmp_path: Path) -> None:
    song, _ = gate.sing(seed=61)
    files, told = gate.client.submit(api_name="/stems").result(timeout=30)
    parts = [soundfile.read(path, dtype="float32")[0] for path in files[:4]]
    assert np.abs(sum(parts) - soundfile.read(song, dtype="float32")[0]).max() < 1e-6
    assert told["model"] == {"id": "prism"} and told["sum_db"] < -100
    (split,) = gate.events("split")
    loaded = {event.pid for event in gate.events("cut")}
    assert split.pid in loaded and split.heard == 10 and gate.studio.pid not in loaded
    gate.sing(seed=62)
    assert {event.pid for event in gate.events("cut")} == loaded, "no song carries it"
    with closing(visitor(gate.studio.url, tmp_path)) as stranger, pytest.raises(Exception, match="no take yet"):
        stranger.predict(api_name="/stems")


def test_exports_and_restoring_need_no_worker(gate: Gate) -> None:
    gate.sing(seed=63)
    leases = len(gate.device.leases)
    path, _ = gate.client.predict("flac", api_name="/export")
    told = gate.client.predict(handle_file(path), api_name="/restore")
    assert told["controls"]["seed"] == 63 and told["mode"] == "generate"
    assert len(gate.device.leases) == leases
