"""Several takes through the gate: one by one, none lost by what follows it, none made twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import numpy as np
import pytest

import backend
import checkpoints
import costs
from errors import BadOutput, GpuAborted
from plans import Plan
from song import Generate
from sound import SAMPLE_RATE, Progress, Sound

REQUEST = Generate.parse({"prompt": "rain", "duration_s": 10, "inference_steps": 8, "seed": 5, "takes": 3})
PLANNER = {"name": "parrot", "chosen": ["codes"], "plan": {"caption": "rain", "codes": " ".join(["7"] * 50)}}


def sound(take: int, **more: Any) -> Sound:
    samples = np.full((2, 4), take, np.float32)
    return Sound(samples, SAMPLE_RATE, {"total_s": 10.0 * take}, {"key": "fake"}, **more)


def numbers(events: list[Any]) -> list[int]:
    """Which takes came, in order."""
    return [int(event.samples[0, 0]) for event in events if isinstance(event, Sound)]


class Engine:
    """A step and a sound for each take, after what is done for it in `acts`."""

    def __init__(self, acts: dict[int, Callable[[], None]] | None = None) -> None:
        self.acts, self.begun = acts or {}, []

    def takes(self, request: Generate, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        for take in range(done + 1, request.takes + 1):
            report(Progress("Denoising", take, request.takes, take=take, takes=request.takes))
            self.begun.append(take)
            self.acts.get(take, lambda: None)()
            yield sound(take)


@pytest.fixture(autouse=True)
def fresh_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(checkpoints, "device", lambda: "cpu")
    monkeypatch.setattr(costs, "_beliefs", {})
    monkeypatch.setattr(backend, "BEAT_S", 0.02)
    yield
    assert backend._lock.acquire(timeout=5), "a song never ended"
    backend._lock.release()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Sing with this engine."""

    def choose(engine: Any) -> Any:
        monkeypatch.setattr(backend, "_engine", engine)
        return engine

    return choose


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_takes_come_as_they_are_finished_and_no_beat_brings_one_again(use: Any) -> None:
    engine = use(Engine({2: lambda: time.sleep(0.2)}))
    running = backend.answer(REQUEST)
    assert numbers([next(event for event in running if isinstance(event, Sound))]) == [1] and engine.begun != [1, 2, 3]
    rest = list(running)
    assert numbers(rest) == [2, 3]
    beats = [event for event in rest if isinstance(event, Progress) and event.take == 2]
    assert len(beats) > 3, "while the second is made the page still hears something"


def test_what_fails_one_take_leaves_those_before_it(use: Any) -> None:
    engine, events = use(Engine({2: raises(BadOutput("The model made silence."))})), []
    with pytest.raises(BadOutput, match="made silence"):
        kept(events, backend.answer(REQUEST))
    assert numbers(events) == [1] and engine.begun == [1, 2]
    assert numbers(list(backend.answer(REQUEST.singles()[0]))) == [1], "and the next song is as ever"


def kept(events: list[Any], running: Iterator[Any]) -> None:
    """Fill `events` with what comes, before an error, too."""
    for event in running:
        events.append(event)


def test_a_stop_between_takes_ends_what_is_not_begun(use: Any) -> None:
    engine = use(Engine({2: lambda: time.sleep(0.2)}))
    running = backend.run_gpu(REQUEST)
    next(event for event in running if isinstance(event, Sound))
    running.close()
    with backend._lock:
        assert 3 not in engine.begun


def test_the_time_of_all_takes_together_is_learned_once(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learned = []
    monkeypatch.setattr(costs, "learn", lambda work, *_: learned.append((work.takes, _[-1]["total_s"])))
    use(Engine())
    list(backend.answer(REQUEST))
    assert learned == [(3, 60.0)]
    use(Engine({2: raises(BadOutput("The model made silence."))}))
    with pytest.raises(BadOutput):
        list(backend.answer(REQUEST))
    assert learned == [(3, 60.0)], "not from takes that are missing"


def test_more_seconds_are_asked_for_more_takes_and_for_the_missing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "1")
    one, two, three = (backend.gpu_seconds(REQUEST.model_copy(update={"takes": n})) for n in (1, 2, 3))
    assert one < two < three < 3 * one
    assert backend.gpu_seconds(REQUEST, 1.0, 1) == two and backend.gpu_seconds(REQUEST, 2.0, 2) in range(
        2 * one, 2 * one + 2
    )


# On ZeroGPU


class Gpu:
    """`run_gpu` as ZeroGPU wraps it: each of the first calls comes to a take of `lasts` and is aborted then."""

    def __init__(self, *lasts: int) -> None:
        self.lasts, self.asked = list(lasts), []

    def __call__(self, request: Generate, multiplier: float, done: int) -> Iterator[Sound]:
        self.asked.append((request.plan, multiplier, done))
        last = self.lasts.pop(0) if self.lasts else None
        for take in range(done + 1, (request.takes if last is None else last) + 1):
            told = PLANNER if request.plan is None else {"chosen": [], "plan": PLANNER["plan"]}
            yield sound(take, planner=told, together={"take": take, "of": request.takes})
        if last is not None:
            raise gr.Error("GPU task aborted", title="ZeroGPU worker error", print_exception=False)


def test_after_an_abort_only_the_missing_takes_are_made_by_the_same_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(1)
    monkeypatch.setattr(backend, "run_gpu", gpu)
    events = list(backend.answer(REQUEST))
    assert numbers(events) == [1, 2, 3]
    assert gpu.asked == [(None, 1.0, 0), (Plan.model_validate(PLANNER["plan"]), 2.0, 1)]
    assert all(event.planner == PLANNER for event in events if isinstance(event, Sound)), (
        "who chose it is not forgotten"
    )


def test_an_abort_before_the_first_take_begins_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0)
    monkeypatch.setattr(backend, "run_gpu", gpu)
    assert numbers(list(backend.answer(REQUEST))) == [1, 2, 3]
    assert gpu.asked == [(None, 1.0, 0), (None, 2.0, 0)]


def test_an_abort_after_the_last_take_is_nobodys_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(3)
    monkeypatch.setattr(backend, "run_gpu", gpu)
    assert numbers(list(backend.answer(REQUEST))) == [1, 2, 3] and len(gpu.asked) == 1


def test_takes_that_came_before_a_second_abort_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, events = Gpu(1, 2), []
    monkeypatch.setattr(backend, "run_gpu", gpu)
    with pytest.raises(GpuAborted, match="twice"):
        kept(events, backend.answer(REQUEST))
    assert numbers(events) == [1, 2]
