"""The gate on ZeroGPU: the real page and the real `spaces` package, its workers forked for a stand-in of the device service.

Each test runs twice: once where a worker is kept for the next song, once where it is killed after each.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import served
from gradio_client import Client
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from waiting import wait_until
from zero_device import ZeroDevice

from backend import ZERO_GPU_ERRORS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU and its package are for Linux only")

STEPS = 8


class Event(NamedTuple):
    """A line of the engine's log."""

    what: str
    pid: int
    seed: int


@dataclass(repr=False)
class Gate:
    """A served studio behind the gate, with all that can be seen of it from outside."""

    device: ZeroDevice
    studio: served.Served
    engine_log: Path
    client: Client

    def submit(self, prompt: str = "tone", seed: int = 1, client: Client | None = None) -> Job:
        """Ask for 10 s of music through the public endpoint."""
        return (client or self.client).submit(
            prompt=prompt, duration_s=10, inference_steps=STEPS, seed=seed, api_name="/generate"
        )

    def sing(self, prompt: str = "tone", seed: int = 1) -> tuple[str, dict[str, Any]]:
        """File and metadata of a song. Raises AppError with the words that the visitor sees."""
        return self.submit(prompt, seed).result(timeout=30)

    def events(self, *kinds: str, seed: int | None = None) -> list[Event]:
        """What the engine did so far: of these kinds, for this seed."""
        lines = (line.split() for line in self.engine_log.read_text().splitlines())
        every = [Event(what, int(pid), int(its_seed)) for what, pid, its_seed in lines]
        return [e for e in every if e.what in kinds and seed in (None, e.seed)]

    def worker(self) -> int:
        """The process that sang last."""
        return self.events("song")[-1].pid


@pytest.fixture(scope="module", params=["keep", "kill"])
def gate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp(request.param)
    # A Space's: `spaces` cannot read every form that this machine's own may have.
    (folder / "cgroup").write_text("0::/space\n")
    log = folder / "engine.log"
    with (
        ZeroDevice(request.param) as device,
        served.studio(
            folder,
            "tests/gate_app.py",
            GATE_LOG=str(log),
            SPACES_ZERO_GPU="true",
            SPACES_ZERO_DEVICE_API_URL=device.url,
            ZEROGPU_PROC_SELF_CGROUP_PATH=str(folder / "cgroup"),
        ) as studio,
        closing(visitor(studio.url, folder)) as client,
    ):
        yield Gate(device, studio, log, client)


def visitor(url: str, folder: Path, **headers: str) -> Client:
    """Someone who uses the public endpoint."""
    return Client(url, verbose=False, download_files=folder, headers=headers, analytics_enabled=False)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def sentence(title: str) -> str:
    """Our words for an error of the `spaces` package."""
    _, message, hint = ZERO_GPU_ERRORS[title]
    return f"{message} {hint}"


def test_progress_arrives_step_by_step_and_then_the_song(gate: Gate) -> None:
    *told, (file, metadata) = list(gate.submit(seed=11))

    steps = [(p["step"], p["of"]) for nothing, p in told if p["of"]]
    assert [step for step, _ in itertools.groupby(steps)] == [(n, STEPS) for n in range(1, STEPS + 1)]  # beats repeat
    assert Path(file).read_bytes()[:4] == b"RIFF"
    assert metadata["seed"] == 11 and metadata["audio"]["seconds"] == 10


def test_same_seed_gives_the_same_bytes(gate: Gate) -> None:
    one, again, other = (Path(gate.sing(seed=seed)[0]).read_bytes() for seed in (31, 31, 32))

    assert one == again
    assert one != other


def test_cancelled_song_stops_within_two_steps_and_its_worker_takes_the_next(gate: Gate) -> None:
    job = gate.submit("slow", seed=41)
    next(progress for _, progress in job if progress["step"] == 2)
    begun, worker = len(gate.events("step", seed=41)), gate.worker()
    job.cancel()
    wait_until(lambda: bool(gate.events("end", seed=41)) or gone(worker), seconds=10)

    assert len(gate.events("step", seed=41)) <= begun + 2 < STEPS
    gate.sing(seed=42)
    assert (gate.worker() == worker) == (gate.device.policy == "keep")


def test_engine_error_reaches_the_visitor_in_its_own_words(gate: Gate) -> None:
    with pytest.raises(AppError) as caught:
        gate.sing("fail", seed=51)

    assert str(caught.value) == "The model made silence. Try another seed or other words."
    assert not gate.device.leases[-1].failed  # an error is no reason to lose a warm worker


def test_unforeseen_error_shows_only_a_code_and_the_log_holds_the_rest(gate: Gate) -> None:
    with pytest.raises(AppError) as caught:
        gate.sing("crash", seed=61)

    shown = re.fullmatch(
        r"Something went wrong in the studio \(incident ([0-9a-f]{8})\)\. Please try again\.", str(caught.value)
    )
    assert shown
    logged = gate.studio.log.read_text().split(f"incident {shown[1]}")[1]
    assert "Traceback" in logged and "LookupError: tensor 0x7f in /secret/folder" in logged


def test_second_visitor_waits_and_is_served(gate: Gate, tmp_path: Path) -> None:
    first = gate.submit("slow", seed=71)
    next(iter(first))
    assert not gate.events("end", seed=71)  # its progress comes while it is made
    with closing(visitor(gate.studio.url, tmp_path)) as friend:
        second = gate.submit("tone", seed=72, client=friend)
        assert second.result(timeout=30)[1]["seed"] == 72
    assert first.result(timeout=30)[1]["seed"] == 71
    order = [(e.what, e.seed) for e in gate.events("song", "end") if e.seed in (71, 72)]
    assert order == [("song", 71), ("end", 71), ("song", 72), ("end", 72)]
    assert gate.device.most_at_once == 1


def test_worker_that_died_between_two_songs_is_replaced(gate: Gate) -> None:
    gate.sing(seed=81)
    worker = gate.worker()
    with suppress(ProcessLookupError):  # with policy "kill" it is gone already
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: gone(worker), seconds=10)

    assert gate.sing(seed=82)[1]["seed"] == 82
    assert gate.worker() != worker


def test_aborted_song_is_tried_once_more_with_twice_the_time(gate: Gate) -> None:
    *told, (_, metadata) = list(gate.submit("die once", seed=91))

    assert metadata["seed"] == 91
    assert "The GPU stopped early. Trying once more with more time" in [p["phase"] for _, p in told]
    first, second = gate.device.leases[-2:]
    assert (first.failed, second.failed) == (True, False)
    assert second.seconds == 2 * first.seconds


def test_song_aborted_twice_says_so_and_the_next_one_works(gate: Gate) -> None:
    before = len(gate.device.leases)
    with pytest.raises(AppError) as caught:
        gate.sing("die always", seed=101)

    assert str(caught.value) == sentence("ZeroGPU worker error")
    assert [lease.failed for lease in gate.device.leases[before:]] == [True, True]
    assert gate.sing(seed=102)[1]["seed"] == 102


@pytest.mark.parametrize(
    ("limit", "value", "title"),
    [
        ("max_s", 30, "ZeroGPU illegal duration"),
        ("quota_s", 30, "ZeroGPU quota exceeded"),
        ("closed", True, "ZeroGPU queue timeout"),  # no GPU anywhere: the same to a visitor as waiting in vain
    ],
)
def test_refusal_is_told_in_our_words_before_the_engine_works(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, limit: str, value: Any, title: str
) -> None:
    monkeypatch.setattr(gate.device, limit, value)
    with pytest.raises(AppError) as caught:
        gate.sing(seed=111)

    assert str(caught.value) == sentence(title)
    assert not gate.events("song", seed=111)


def test_visitor_pays_with_their_own_quota_and_their_token_is_not_logged(gate: Gate, tmp_path: Path) -> None:
    token = "e30.e30.c2VjcmV0"
    with closing(visitor(gate.studio.url, tmp_path, **{"x-ip-token": token})) as friend:
        gate.submit(seed=121, client=friend).result(timeout=30)

    assert gate.device.leases[-1].visitor == token
    assert token not in gate.studio.log.read_text()


def test_engine_is_built_once_in_the_main_process_and_workers_reuse_it(gate: Gate) -> None:
    gate.sing(seed=21)
    gate.sing(seed=22)

    first, second = (gate.events("song", seed=seed)[0].pid for seed in (21, 22))
    assert gate.events("build") == [("build", gate.studio.pid, 0)]
    assert gate.engine_log.read_text().startswith("build")
    assert gate.studio.pid not in (first, second)
    assert (first == second) == (gate.device.policy == "keep")
