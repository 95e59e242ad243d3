"""The gate and ZeroGPU's terms: how many seconds are asked for, and what is said when the package refuses or aborts.

Errors are made as the package makes them; test_gate.py drives the package itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backend
import costs
import quotas
from errors import EngineFault, GpuAborted, GpuBusy, QuotaError, StudioError
from song import DURATION_RANGE, KNOBS, Generate
from sound import SAMPLE_RATE, Sound

REQUEST = Generate.parse({"prompt": "rain", "duration_s": 10, "inference_steps": 8, "seed": 5})
SOUND = Sound(np.zeros((2, 4), np.float32), SAMPLE_RATE, {"total_s": 1.0}, {"key": "fake"})


class Gpu:
    """`run_gpu` as ZeroGPU wraps it: each call raises the next error; when none is left it sings."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.multipliers = list(errors), []

    def __call__(self, request: Generate, multiplier: float = 1.0, done: int = 0) -> Iterator[Sound]:
        self.multipliers.append(multiplier)
        if self.errors:
            raise self.errors.pop(0)
        yield SOUND


def zero_gpu_error(title: str, message: str) -> gr.Error:
    return gr.Error(message, title=title, print_exception=False)


def aborted() -> gr.Error:
    return zero_gpu_error("ZeroGPU worker error", "GPU task aborted")


# Seconds to ask for


def valid_requests() -> st.SearchStrategy[Generate]:
    steps = KNOBS["inference_steps"]
    values = st.fixed_dictionaries(
        {
            "prompt": st.just("rain"),
            "duration_s": st.floats(*DURATION_RANGE),
            "inference_steps": st.integers(int(steps.low), int(steps.high)),
        }
    )
    return values.map(Generate.parse)


@given(valid_requests(), st.floats(1, 100))
def test_any_request_asks_for_whole_seconds_within_the_bounds(request: Generate, multiplier: float) -> None:
    seconds = backend.gpu_seconds(request, multiplier, 0, "injected by gradio", progress=None)

    assert type(seconds) is int
    assert 60 <= seconds <= 300


@given(valid_requests())
def test_multiplier_of_two_asks_for_twice_the_seconds(request: Generate) -> None:
    assert backend.gpu_seconds(request, 2.0) == min(2 * backend.gpu_seconds(request), 300)


@pytest.mark.parametrize("more", [{"inference_steps": 80}, {"duration_s": 600}])
def test_more_work_asks_for_more_seconds(monkeypatch: pytest.MonkeyPatch, more: dict[str, float]) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "1")
    less = {"prompt": "rain", "duration_s": 10, "inference_steps": 8}

    assert backend.gpu_seconds(Generate.parse(less | more)) > backend.gpu_seconds(Generate.parse(less))


def test_bounds_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "90")
    monkeypatch.setenv("ACE_GPU_MAX_S", "91")

    assert backend.gpu_seconds(REQUEST) == 90
    assert backend.gpu_seconds(REQUEST, 100.0) == 91


def test_songs_that_took_longer_than_expected_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(costs, "_beliefs", {})
    monkeypatch.setattr(backend, "_engine", object())  # built ahead
    long = Generate.parse({"prompt": "rain", "duration_s": 600, "inference_steps": 80, "guidance_scale": 7, "seed": 5})
    before = backend.gpu_seconds(long)
    sound = Sound(SOUND.samples, SAMPLE_RATE, {"denoise_s": 150.0, "decode_s": 3.0, "total_s": 153.0}, {"key": "fake"})
    monkeypatch.setattr(backend, "run_gpu", lambda *_: iter([sound]))
    assert list(backend.answer(long)) == [sound]
    assert before + 60 < backend.gpu_seconds(long) < 300


# ZeroGPU's own errors


def test_aborted_task_is_tried_once_more_at_twice_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(aborted())
    monkeypatch.setattr(backend, "run_gpu", gpu)

    progress, sound = backend.answer(REQUEST)
    assert gpu.multipliers == [1.0, 2.0]
    assert "Trying once more" in progress.phase and sound is SOUND


def test_task_aborted_twice_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(aborted(), aborted())
    monkeypatch.setattr(backend, "run_gpu", gpu)

    with pytest.raises(GpuAborted, match="twice"):
        list(backend.answer(REQUEST))
    assert gpu.multipliers == [1.0, 2.0]


@pytest.mark.parametrize(
    ("title", "message", "kind", "words"),
    [
        ("ZeroGPU quota exceeded", "You have exceeded your free ZeroGPU quota", QuotaError, "GPU time for today"),
        ("ZeroGPU illegal duration", "The requested GPU duration (300s) is larger", QuotaError, "more GPU time than"),
        ("ZeroGPU queue timeout", "No GPU was available after 60s", GpuBusy, "No GPU came free"),
        ("ZeroGPU pending credits exceeded", "You have too many ZeroGPU credits", QuotaError, "Too many songs"),
        ("ZeroGPU client error", "Expired ZeroGPU proxy token", GpuBusy, "pass has expired"),
        # The package files these two under titles that say something else.
        ("ZeroGPU client error", "No GPU was available", GpuBusy, "No GPU came free"),
        ("ZeroGPU quota exceeded", "No GPU was available after 60s. Try re-running", GpuBusy, "No GPU came free"),
        ("ZeroGPU worker error", "ValueError", EngineFault, "incident"),  # raised by our code in the worker
        ("ZeroGPU news", "Whatever the package says next", EngineFault, "incident"),
    ],
)
def test_error_of_zero_gpu_is_told_in_our_words_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, title: str, message: str, kind: type[StudioError], words: str
) -> None:
    gpu = Gpu(zero_gpu_error(title, message))
    monkeypatch.setattr(backend, "run_gpu", gpu)

    with pytest.raises(StudioError, match=words) as caught:
        list(backend.answer(REQUEST))
    assert type(caught.value) is kind
    assert message not in str(caught.value)
    assert gpu.multipliers == [1.0]


def test_quota_figures_and_the_hour_to_come_back_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "You have exceeded your free ZeroGPU quota (90s requested vs. 20s left). Try again in 3:25:10. Subscribe to ..."
    )
    monkeypatch.setattr(backend, "run_gpu", Gpu(zero_gpu_error("ZeroGPU quota exceeded", told)))

    with pytest.raises(QuotaError) as caught:
        list(backend.answer(REQUEST))
    assert "(90s requested vs. 20s left)" in caught.value.message
    assert caught.value.hint == "Try again in 3:25:10, or try a shorter song."


def test_every_title_of_the_installed_package_has_our_words() -> None:
    package = Path(pytest.importorskip("spaces").__file__).parent / "zero"
    titles = {t for file in package.rglob("*.py") for t in re.findall(r'\berror\("(ZeroGPU [^"]+)"', file.read_text())}

    assert titles == set(quotas.ERRORS)
