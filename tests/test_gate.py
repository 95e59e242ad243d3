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

import numpy as np
import pytest
import served
import soundfile
import tiny
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from waiting import wait_until
from zero_device import ZeroDevice

from checkpoints import transformer_config
from quotas import ERRORS
from settings import CHECKPOINTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ZeroGPU and its package are for Linux only")

STEPS = 8


class Event(NamedTuple):
    """A line of the engine's log."""

    what: str
    pid: int
    seed: int
    heard: float  # seconds of a source that came with the song


@dataclass(repr=False)
class Gate:
    """A served studio behind the gate, with all that can be seen of it from outside."""

    device: ZeroDevice
    studio: served.Served
    engine_log: Path
    client: Client

    def submit(self, prompt: str = "tone", seed: int = 1, client: Client | None = None) -> Job:
        """Ask for 10 s of music through the public endpoint."""
        return self.ask("generate", client, prompt=prompt, seed=seed, duration_s=10)

    def ask(self, mode: str, client: Client | None = None, **values: Any) -> Job:
        """Ask for a song of any mode."""
        return (client or self.client).submit(**values, inference_steps=STEPS, api_name=f"/{mode}")

    def sing(self, prompt: str = "tone", seed: int = 1) -> tuple[str, dict[str, Any]]:
        """File and metadata of a song. Raises AppError with the words that the visitor sees."""
        return self.submit(prompt, seed).result(timeout=30)

    def events(self, *kinds: str, seed: int | None = None) -> list[Event]:
        """What the engine did so far: of these kinds, for this seed."""
        lines = (line.split() for line in self.engine_log.read_text().splitlines())
        every = [Event(what, int(pid), int(its_seed), float(heard)) for what, pid, its_seed, heard in lines]
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
            ACE_PLANNER="1.7B",
            SPACES_ZERO_GPU="true",
            SPACES_ZERO_DEVICE_API_URL=device.url,
            ZEROGPU_PROC_SELF_CGROUP_PATH=str(folder / "cgroup"),
        ) as studio,
        closing(visitor(studio.url, folder)) as client,
    ):
        yield Gate(device, studio, log, client)


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 s of a beat, to be extended and edited."""
    path = tmp_path_factory.mktemp("songs") / "song.flac"
    beat = (0.3 * np.sin(np.arange(4800) / 20) * np.linspace(1, 0, 4800)).astype(np.float32)
    soundfile.write(path, np.tile(beat, 1000), 48_000, subtype="PCM_16")
    return path


def visitor(url: str, folder: Path, **headers: str) -> Client:
    """Someone who uses the public endpoint."""
    return Client(url, verbose=False, download_files=folder, headers=headers, analytics_enabled=False)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def sentence(title: str) -> str:
    """Our words for an error of the `spaces` package."""
    _, message, hint = ERRORS[title]
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


REMAKES = {  # what is asked of 100 s of song, how much of it the engine has to hear, which samples may change
    "extend": ({"extra_duration_s": 5, "context_s": 20, "crossfade_s": 2}, 20, [[98, 105]]),
    "edit": ({"regions": [[50, 60]]}, 60, [[50, 60]]),
}


@pytest.mark.parametrize("mode", REMAKES)
def test_remake_arrives_by_step_with_a_receipt_and_only_what_is_heard_crosses(
    gate: Gate, song: Path, mode: str
) -> None:
    values, heard, changed = REMAKES[mode]
    *told, (file, metadata) = list(gate.ask(mode, source_audio=handle_file(song), seed=131, **values))

    steps = [(p["step"], p["of"]) for nothing, p in told if p["of"]]
    assert [step for step, _ in itertools.groupby(steps)] == [(n, STEPS) for n in range(1, STEPS + 1)]
    receipt = metadata["receipt"]
    assert receipt["changed"] == [[a * 48_000, b * 48_000] for a, b in changed]
    assert receipt["kept"]["identical"]
    made, source = (soundfile.read(path, dtype="float32", always_2d=True)[0] for path in (file, song))
    ((first, last),) = receipt["changed"]
    assert np.array_equal(made[:first], np.repeat(source[:first], 2, axis=1))
    assert np.array_equal(made[last:], np.repeat(source[last:], 2, axis=1))
    assert gate.events("song", seed=131)[-1].heard == heard


def test_recording_that_cannot_be_used_costs_no_gpu_time(gate: Gate, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000), 48_000)
    before = len(gate.device.leases)
    for mode, (values, *_) in REMAKES.items():
        with pytest.raises(AppError) as caught:
            gate.ask(mode, source_audio=handle_file(tmp_path / "silence.wav"), **values).result(timeout=30)
        assert str(caught.value) == "This recording is silent."

    assert len(gate.device.leases) == before


@pytest.mark.parametrize("mode", ["generate", *REMAKES])
def test_cancelled_song_stops_within_two_steps_and_its_worker_takes_the_next(gate: Gate, song: Path, mode: str) -> None:
    seed = 41 + ["generate", *REMAKES].index(mode)
    values = {"source_audio": handle_file(song), **REMAKES[mode][0]} if mode in REMAKES else {"duration_s": 10}
    job = gate.ask(mode, prompt="slow", seed=seed, **values)
    next(progress for _, progress in job if progress["step"] == 2)
    begun, worker = len(gate.events("step", seed=seed)), gate.worker()
    job.cancel()
    wait_until(lambda: bool(gate.events("end", seed=seed)) or gone(worker), seconds=10)

    assert len(gate.events("step", seed=seed)) <= begun + 2 < STEPS
    gate.sing(seed=49)
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


def test_plan_is_made_in_the_worker_and_crosses_with_the_song(gate: Gate) -> None:
    _, metadata = gate.sing("plan me", seed=121)
    told = metadata["planner"]
    assert (told["name"], told["chosen"], told["plan"]["caption"]) == ("parrot", ["caption", "codes"], "plan me")
    assert told["plan"]["codes"] == " ".join(["121"] * 50)
    assert gate.events("plan", seed=121)[0].pid == gate.events("song", seed=121)[0].pid != gate.studio.pid


def test_draft_crosses_the_gate_like_a_song(gate: Gate) -> None:
    job = gate.client.submit(query="rain", seed=131, api_name="/write")
    draft = job.result(timeout=30)
    assert (draft["prompt"], draft["lyrics"], draft["seed"]) == ("rain", "la", 131)
    assert gate.events("plan", seed=131)[0].pid != gate.studio.pid
    assert {"phase": "Writing", "step": 0, "of": 0} in job.outputs()


def test_lora_crosses_as_a_path_and_is_read_in_the_worker(gate: Gate, tmp_path: Path) -> None:
    demo = transformer_config(CHECKPOINTS["demo"])
    stack = [{"file": handle_file(tiny.lora(tmp_path / f"{n}.safetensors", n, demo)), "strength": 0.5} for n in (1, 2)]
    metadata = gate.ask("generate", prompt="tone", seed=141, duration_s=10, loras=stack).result(timeout=30)[1]

    assert [(told["name"], told["modules"], told["strength"]) for told in metadata["loras"]] == [
        ("1", 88, 0.5),
        ("2", 88, 0.5),
    ]
    heard = gate.events("lora", seed=141)
    assert [event.heard for event in heard] == [44, 44] and {event.pid for event in heard} == {gate.worker()}
    assert gate.sing(seed=142)[1]["loras"] == [] and not gate.events("lora", seed=142)


def test_lora_that_does_not_fit_costs_no_gpu_time(gate: Gate, tmp_path: Path) -> None:
    stack = [{"file": handle_file(tiny.lora(tmp_path / "tiny.safetensors"))}]
    with pytest.raises(AppError) as caught:
        gate.ask("generate", prompt="tone", seed=151, duration_s=10, loras=stack).result(timeout=30)

    assert "was made for another model, not for the demo model. Its layers are 32 wide" in str(caught.value)
    assert not gate.events("song", seed=151)


def test_engine_is_built_once_in_the_main_process_and_workers_reuse_it(gate: Gate) -> None:
    gate.sing(seed=21)
    gate.sing(seed=22)

    first, second = (gate.events("song", seed=seed)[0].pid for seed in (21, 22))
    assert gate.events("build", "hatch") == [(what, gate.studio.pid, 0, 0) for what in ("build", "hatch")]
    assert gate.engine_log.read_text().startswith("build")
    assert gate.studio.pid not in (first, second)
    assert (first == second) == (gate.device.policy == "keep")


def test_lyrics_load_in_a_worker_and_no_song_carries_them(gate: Gate) -> None:
    gate.sing(seed=31)
    text, made = gate.client.submit("rain", structure="intro, verse: 2", seed=32, api_name="/lyrics").result(timeout=30)
    assert text == "[intro]\n[verse]\nrain\nrain" and made["model"] == {"name": "poet"}
    loaded = {event.pid for event in gate.events("inspire")}
    assert {event.pid for event in gate.events("poem", seed=32)} == loaded
    assert gate.studio.pid not in loaded, "every worker would be born with it"
    gate.sing(seed=33)
    assert {event.pid for event in gate.events("inspire")} == loaded
