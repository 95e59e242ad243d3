"""Stems at the gate: built when first asked, apart from the song model, stopped within a chunk, forgotten with memory."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_stems

import backend
import stems
from afters import Separate
from errors import EngineMissing, Failure, OutOfMemory
from sound import SAMPLE_RATE, AudioClip, Progress, Stems

SONG = np.random.default_rng(2).uniform(-0.3, 0.3, (2, 4 * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's row without any model built, and nothing of a song may be."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_separators", {})
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setattr(backend.ace_pipeline, "load", lambda *_: pytest.fail("a song model was loaded for stems"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACE_STEMS_MODEL", str(tiny_stems.weights(tmp_path / "tiny")))


def request(seconds: float = 4) -> Separate:
    song = AudioClip(SONG[:, : round(seconds * SAMPLE_RATE)], {})
    return Separate.parse({}).model_copy(update={"song": song})


def test_stems_cross_the_gate_as_plain_values_and_the_model_is_loaded_once(tiny: None) -> None:
    events = list(backend.run_gpu(pickle.loads(pickle.dumps(request()))))
    made = pickle.loads(pickle.dumps(events[-1]))
    assert isinstance(made, Stems) and np.abs(sum(made.samples.values()) - SONG).max() < 1e-5
    phases = list(dict.fromkeys(event.phase for event in events[:-1] if event.phase != "Starting"))
    assert phases == ["Loading the stems model; the first stems take longer", "Separating"]
    again = list(backend.run_gpu(request()))
    assert "Loading the stems model; the first stems take longer" not in {event.phase for event in again[:-1]}
    assert len(backend._separators) == 1


def test_closing_stops_within_a_chunk_and_the_next_song_need_not_wait(tiny: None) -> None:
    events = backend.run_gpu(request())
    while next(events).step < 1:
        pass
    events.close()
    assert backend._lock.acquire(timeout=30)
    backend._lock.release()


def test_missing_weights_are_one_sentence_and_asked_for_again_the_next_time(
    monkeypatch: pytest.MonkeyPatch, tiny: None
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("ACE_STEMS_MODEL", "")
        with pytest.raises(EngineMissing, match="could not be loaded: there is no network"):
            list(backend.answer(request()))
    assert isinstance(list(backend.answer(request()))[-1], Stems), "a failed load is not remembered"


def test_out_of_memory_forgets_the_model_and_the_next_request_works(
    monkeypatch: pytest.MonkeyPatch, tiny: None
) -> None:
    def full(*_: object) -> Stems:
        raise MemoryError

    list(backend.answer(request()))
    with monkeypatch.context() as patch:
        patch.setattr(stems.Separator, "separate", full)
        with pytest.raises(OutOfMemory):
            list(backend.answer(request()))
    assert backend._separators == {}
    assert isinstance(list(backend.answer(request()))[-1], Stems)


def test_more_time_is_asked_for_a_longer_song() -> None:
    long = Separate.parse({}).model_copy(update={"song": AudioClip(np.zeros((2, 600 * SAMPLE_RATE), np.float32), {})})
    assert 60 == backend.gpu_seconds(request()) <= backend.gpu_seconds(long) <= 300
    assert backend.gpu_seconds(long, 4.0) > backend.gpu_seconds(request())


def test_a_failure_is_a_value(monkeypatch: pytest.MonkeyPatch, tiny: None) -> None:
    monkeypatch.setattr(stems.Separator, "separate", lambda *_: 1 / 0)
    *told, last = backend.run_gpu(request())
    assert isinstance(last, Failure) and last.kind == "EngineFault" and all(isinstance(e, Progress) for e in told)
