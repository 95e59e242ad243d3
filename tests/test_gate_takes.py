"""Several takes on ZeroGPU: each crosses as it is finished, and what a dead worker leaves undone is made by the next."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from test_gate import STEPS, Gate, gate

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU and its package are for Linux only")
assert gate  # a fixture


def test_takes_of_one_worker_come_one_by_one(gate: Gate) -> None:
    leases = len(gate.device.leases)
    outputs = list(gate.ask("generate", prompt="tone", seed=300, duration_s=10, takes=3))
    came = [(n, metadata["seed"]) for n, (file, metadata) in enumerate(outputs) if file]
    assert [seed for _, seed in came] == [300, 301, 302] and len(gate.device.leases) == leases + 1
    assert all(later - n > STEPS / 2 for (n, _), (later, _) in itertools.pairwise(came)), "steps lie between"
    file, metadata = outputs[-1]
    takes = metadata["together"]["takes"]
    assert [Path(take["file"]).name for take in takes][-1] == Path(file).name, "a client has them all"
    assert len({Path(take["file"]).read_bytes() for take in takes}) == 3
    assert len(gate.events("plan", seed=300)) == 1 and not gate.events("plan", seed=301)


def test_after_a_worker_died_only_the_missing_takes_are_made_by_the_same_plan(gate: Gate) -> None:
    *told, (_, metadata) = list(gate.ask("generate", prompt="die odd", seed=310, duration_s=10, takes=3))
    assert "The GPU stopped early. Trying once more with more time" in [p["phase"] for file, p in told if not file]
    takes = [take["metadata"] for take in metadata["together"]["takes"]]
    assert [take["seed"] for take in takes] == [310, 311, 312]
    assert [take["together"] for take in takes] == [{"take": n, "of": 3} for n in (1, 2, 3)]
    assert len({str(take["planner"]) for take in takes}) == 1 and takes[2]["planner"]["name"] == "parrot"
    assert [len(gate.events("song", seed=seed)) for seed in (310, 311, 312)] == [1, 2, 1], "none is made twice"
    assert len(gate.events("plan", seed=310)) == 1 and not gate.events("plan", seed=311)
    first, second = gate.device.leases[-2:]
    assert (first.failed, second.failed) == (True, False) and second.seconds == 2 * first.seconds
