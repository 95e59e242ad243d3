"""The gate in one process: one engine, one song at a time, stop, and every failure as a sentence.

ZeroGPU's terms are in test_backend_zero.py; its real package is driven by test_gate.py.
"""

from __future__ import annotations

import importlib.util
import logging
import pickle
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
from waiting import wait_until

import ace_pipeline
import backend
import checkpoints
from errors import BY_NAME, BadOutput, EngineFault, EngineMissing, Failure, OutOfMemory, StudioError
from song import Generate
from sound import SAMPLE_RATE, Progress, Sound

REQUEST = Generate.parse({"prompt": "rain", "duration_s": 10, "inference_steps": 8, "seed": 5})
SOUND = Sound(np.zeros((2, 4), np.float32), SAMPLE_RATE, {"total_s": 1.0}, {"key": "fake"})


class Engine:
    """Three steps and a sound for each take. `acts` are done before the sounds, one a take."""

    def __init__(self, *acts: Callable[[], None]) -> None:
        self.acts = list(acts)
        self.most_at_once = self._now = 0

    def takes(self, request: Generate, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            for _ in range(done, request.takes):
                for step in range(3):
                    report(Progress("Denoising", step + 1, 3))
                if self.acts:
                    self.acts.pop(0)()
                yield SOUND
        finally:
            self._now -= 1


class Counted:
    """An engine whose reports are counted."""

    def __init__(self, engine: ace_pipeline.Engine) -> None:
        self.engine, self.reports = engine, 0

    def takes(self, request: Generate, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        def counting(progress: Progress) -> None:
            self.reports += 1
            report(progress)

        return self.engine.takes(request, counting, done)


class Visitor(threading.Thread):
    """Somebody who asks for a song, what they are told, and the error they see."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.events: list[Any] = []
        self.error: StudioError | None = None
        self.start()

    def run(self) -> None:
        try:
            for event in backend.answer(REQUEST):
                self.events.append(event)
        except StudioError as error:
            self.error = error

    def has_been_told(self, phase: str) -> bool:
        return any(isinstance(event, Progress) and event.phase == phase for event in self.events)


@pytest.fixture(autouse=True)
def fresh_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setattr(backend, "_tier", None)
    monkeypatch.setattr(checkpoints, "device", lambda: "cpu")
    yield
    assert backend._lock.acquire(timeout=5), "a song never ended"
    backend._lock.release()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Sing with this engine."""

    def choose(engine: Any) -> Any:
        monkeypatch.setattr(ace_pipeline, "load", lambda *_: engine)
        return engine

    return choose


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


# One engine


@pytest.mark.parametrize(
    ("model", "device", "key"), [("", "cpu", "demo"), ("", "cuda", "xl-sft"), ("xl-turbo", "cpu", "xl-turbo")]
)
def test_checkpoint_is_the_named_one_or_the_machines(
    monkeypatch: pytest.MonkeyPatch, model: str, device: str, key: str
) -> None:
    monkeypatch.setenv("ACE_MODEL", model)
    monkeypatch.setattr(checkpoints, "device", lambda: device)

    assert backend.checkpoint().key == key


def test_engine_is_built_once_by_callers_that_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    built, got = [], []

    def slowly(checkpoint: Any, device: str, tier: Any) -> Engine:
        time.sleep(0.05)
        built.append((checkpoint.key, device))
        return Engine()

    monkeypatch.setattr(ace_pipeline, "load", slowly)
    callers = [threading.Thread(target=lambda: got.append(backend.get_backend())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert built == [("demo", "cpu")]
    assert len(got) == 4 and len({id(engine) for engine in got}) == 1


def test_failed_build_is_told_and_tried_again_by_the_next_song(monkeypatch: pytest.MonkeyPatch) -> None:
    builds = [raises(EngineMissing("No weights.")), Engine]
    monkeypatch.setattr(ace_pipeline, "load", lambda *_: builds.pop(0)())

    with pytest.raises(EngineMissing, match=r"No weights\."):
        list(backend.answer(REQUEST))
    assert list(backend.answer(REQUEST))[-1] is SOUND


def test_gate_works_on_a_mac_where_the_spaces_package_is_missing(monkeypatch: pytest.MonkeyPatch, use: Any) -> None:
    use(Engine())
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "spaces", None)
    spec = importlib.util.spec_from_file_location("backend_on_mac", backend.__file__)
    on_mac = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(on_mac)

    assert list(on_mac.answer(REQUEST))[-1] is SOUND


# One song at a time


def test_song_tells_its_steps_and_then_the_sound(use: Any) -> None:
    use(Engine())

    *told, sound = backend.answer(REQUEST)
    assert told == [
        Progress("Loading the model; the first song takes longer"),
        *(Progress("Denoising", n, 3) for n in (1, 2, 3)),
    ]
    assert sound is SOUND


def test_second_song_waits_for_the_first_and_says_so(use: Any) -> None:
    let_go = threading.Event()
    engine = use(Engine(lambda: let_go.wait(5)))
    first = Visitor()
    wait_until(lambda: first.has_been_told("Denoising"))
    second = Visitor()
    wait_until(lambda: second.has_been_told("Waiting for the song before yours"))
    assert not second.has_been_told("Denoising")
    let_go.set()
    first.join(5)
    second.join(5)

    assert first.events[-1] is SOUND and second.events[-1] is SOUND
    assert engine.most_at_once == 1


def test_song_that_is_stopped_while_it_waits_never_begins(use: Any) -> None:
    let_go = threading.Event()
    use(Engine(lambda: let_go.wait(5)))
    first = Visitor()
    wait_until(lambda: first.has_been_told("Denoising"))
    threads = threading.active_count()
    waiting = backend.answer(REQUEST)
    next(waiting)
    waiting.close()
    wait_until(lambda: threading.active_count() == threads)
    let_go.set()
    first.join(5)

    assert first.events[-1] is SOUND


def test_stopped_song_ends_within_two_steps_and_the_next_is_as_if_it_never_was(use: Any) -> None:
    engine = use(Counted(tiny.engine()))
    *_, whole = backend.answer(REQUEST)
    stopped, engine.reports = backend.answer(REQUEST), 0
    next(event for event in stopped if event.step == 2)
    stopped.close()
    seen = engine.reports
    with backend._lock:
        assert engine.reports <= seen + 2 < REQUEST.advanced.inference_steps
    *_, again = backend.answer(REQUEST)

    assert np.array_equal(whole.samples, again.samples)


# Failures


def test_error_of_the_studio_keeps_its_words(use: Any) -> None:
    use(Engine(raises(BadOutput("The model made silence.", "Try another seed."))))

    with pytest.raises(BadOutput) as caught:
        list(backend.answer(REQUEST))
    assert str(caught.value) == "The model made silence. Try another seed."


class Panic(BaseException):
    """As tokenizers raises when its Rust code panics: not an Exception."""


@pytest.mark.parametrize("error", [LookupError("/secret/folder"), Panic("/secret/folder")])
def test_unforeseen_error_becomes_a_code_and_the_log_has_its_traceback(
    use: Any, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    use(Engine(raises(error)))
    visitor = Visitor()
    visitor.join(5)

    assert isinstance(visitor.error, EngineFault)
    shown = str(visitor.error)
    incident = re.search(r"incident ([0-9a-f]{8})", shown)[1]
    assert type(error).__name__ not in shown and "secret" not in shown
    assert f"incident {incident}" in caplog.text and "Traceback" in caplog.text and "/secret/folder" in caplog.text
    assert list(backend.answer(REQUEST))[-1] is SOUND


class OutOfMemoryError(RuntimeError):
    """Known by its name, as torch's are."""


class Tensor:
    """Something large that a failed song holds."""


def test_out_of_memory_gives_the_memory_back_before_the_next_song(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref] = []
    still_held: list[bool] = []

    class Cuda:
        @staticmethod
        def empty_cache() -> None:
            still_held.append(held[0]() is not None)

    class Torch:
        @staticmethod
        def get_device_module() -> type[Cuda]:
            return Cuda

    def fill() -> None:
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setitem(sys.modules, "torch", Torch)
    use(Engine(fill))

    with pytest.raises(OutOfMemory, match="Try a shorter one"):
        list(backend.answer(REQUEST))
    assert still_held == [False]
    assert list(backend.answer(REQUEST))[-1] is SOUND


@pytest.mark.parametrize("event", [Progress("Denoising", 1, 8, 2.5), SOUND, REQUEST], ids=lambda e: type(e).__name__)
def test_what_crosses_the_gate_pickles(event: Any) -> None:
    assert repr(pickle.loads(pickle.dumps(event))) == repr(event)


@pytest.mark.parametrize("kind", BY_NAME)
def test_every_error_survives_the_gate_as_a_failure(kind: str) -> None:
    error = pickle.loads(pickle.dumps(Failure(kind, "What happened.", "What to do."))).error()

    assert type(error) is BY_NAME[kind]
    assert str(error) == "What happened. What to do."


class Timed(Engine):
    """An engine that says it took so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def takes(self, request: Generate, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        for sound in super().takes(request, report, done):
            yield replace(sound, timings={"total_s": self.seconds})


@pytest.mark.parametrize("zero_gpu, seconds, said", [("true", 49, 1), ("true", 47, 0), ("", 49, 0)])
def test_song_that_nearly_outran_its_gpu_time_is_logged(
    use: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, zero_gpu: str, seconds: int, said: int
) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", zero_gpu)
    use(Timed(seconds))
    with caplog.at_level(logging.WARNING, "ace.backend"):
        list(backend.answer(REQUEST))

    assert caplog.messages == [f"song took {seconds} s of the 60 s asked for"] * said


def test_a_long_phase_still_yields_so_that_it_can_be_stopped(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "BEAT_S", 0.02)
    use(Engine(lambda: time.sleep(0.3)))
    events = list(backend.run_gpu(REQUEST))

    assert events.count(Progress("Denoising", 3, 3)) > 3
    assert isinstance(events[-1], Sound)
