"""How long work takes: more of anything takes longer, what is expected follows what was seen, words are no more exact."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import costs
from afters import Separate
from costs import COLD_START_S, COSTS, MARGIN, Work, about, expected, gpu_seconds, learn
from drafts import DRAFTS, Describe, Tidy, Write
from lyrics import LYRICS, Continue, Lyrics, Refine
from remakes import MODES, Cover, Edit, Extend
from song import Asked, Generate, codes_for
from sound import SAMPLE_RATE, AudioClip, Lora

WORK = Work(27, 30)
CLIP = AudioClip(np.zeros((2, 20 * SAMPLE_RATE), np.float32), {"format": "WAV"})
SHEET = "[verse]\nrain on the roof\nrain in the street"
ASKED: dict[type[Asked], dict[str, Any]] = {
    Generate: {"prompt": "rain"},
    Cover: {"source_audio": CLIP},
    Extend: {"source_audio": CLIP},
    Edit: {"source_audio": CLIP, "regions": [[1, 2]]},
    Write: {"query": "rain"},
    Tidy: {"prompt": "rain"},
    Describe: {"source_audio": CLIP},
    Lyrics: {"brief": "rain"},
    Refine: {"brief": "rain", "draft": SHEET},
    Continue: {"brief": "rain", "draft": SHEET},
    Separate: {},
}


def request(mode: type[Asked], **values: Any) -> Asked:
    """A request of any kind; the song of one for stems comes behind the door."""
    made = mode.parse(ASKED[mode] | values)
    return made.model_copy(update={"song": CLIP}) if mode is Separate else made


def lora(n: int) -> dict[str, Any]:
    return {"lora": Lora(f"/{n}.safetensors", f"LoRA {n}", f"{n:064}", 1234, 8, {})}


@pytest.mark.parametrize("device", COSTS)
@pytest.mark.parametrize("more", [{"forwards": 50}, {"seconds": 60}, {"loras": 1}, {"codes": 150}])
def test_more_of_anything_takes_longer_everywhere(device: str, more: dict[str, int]) -> None:
    cost = COSTS[device]
    assert replace(WORK, **more).on(cost) > WORK.on(cost) > replace(WORK, thinks=False).on(cost) > 0
    twice = replace(WORK, **{name: 2 * value for name, value in more.items()})
    assert twice.on(cost) > replace(WORK, **more).on(cost)


def test_a_song_without_guidance_takes_half_the_steps_time_on_a_cpu_and_no_less_on_a_gpu() -> None:
    plain = replace(WORK, guided=False)
    assert plain.on(COSTS["cpu"]) < WORK.on(COSTS["cpu"]) and plain.on(COSTS["mps"]) < WORK.on(COSTS["mps"])
    saved = WORK.on(COSTS["cpu"]) - plain.on(COSTS["cpu"])
    steps = WORK.on(COSTS["cpu"]) - replace(WORK, forwards=0).on(COSTS["cpu"])
    assert saved == pytest.approx(steps / 2)
    assert plain.on(COSTS["cuda"]) == WORK.on(COSTS["cuda"]), "bound by the launches of kernels"


def test_the_work_of_a_song_is_read_from_its_request() -> None:
    made = request(Generate, inference_steps=50, duration_s=12, guidance_scale=1, loras=[lora(1), lora(2)])
    assert Work.of(made) == Work(50, 12, False, codes_for(12), True, 2)
    assert Work.of(request(Cover, inference_steps=8)) == Work(8, 20)
    assert Work.of(request(Extend, extra_duration_s=10)) == Work(27, 30)
    flow = {"sub_mode": "flow_edit", "inference_steps": 20, "n_min": 0.5, "n_avg": 3}
    assert Work.of(request(Edit, **flow)) == Work(60, 20), "two forwards for each draw of each step that morphs"


# Learning


def test_until_a_song_was_made_the_model_alone_is_gone_by() -> None:
    for device, cost in COSTS.items():
        assert expected(WORK, device, "nobody's") == WORK.on(cost)


def test_what_was_seen_is_expected_of_the_same_work_on_the_same_machine_with_the_same_model() -> None:
    before = expected(WORK, "cpu", "learnt")
    learn(WORK, "cpu", "learnt", 3 * before)
    assert expected(WORK, "cpu", "learnt") == pytest.approx(3 * before)
    longer = replace(WORK, seconds=120)
    assert expected(longer, "cpu", "learnt") == pytest.approx(3 * longer.on(COSTS["cpu"])), "and of other work likewise"
    assert expected(WORK, "cpu", "another") == before
    assert expected(WORK, "cuda", "learnt") == WORK.on(COSTS["cuda"])


def test_what_is_expected_moves_towards_what_is_seen_and_settles_there() -> None:
    first = WORK.on(COSTS["cpu"])
    learn(WORK, "cpu", "settling", first)
    away = [2 * first]
    for _ in range(8):
        learn(WORK, "cpu", "settling", 2 * first)
        away.append(2 * first - expected(WORK, "cpu", "settling"))
        assert 0 < away[-1] < 0.7 * away[-2], "closer with each song, and never beyond"
    assert expected(WORK, "cpu", "settling") == pytest.approx(2 * first, rel=0.02)


def test_one_song_that_was_odd_is_not_believed_alone() -> None:
    usual = 2 * WORK.on(COSTS["cpu"])
    for _ in range(3):
        learn(WORK, "cpu", "odd", usual)
    learn(WORK, "cpu", "odd", 10 * usual)
    assert usual < expected(WORK, "cpu", "odd") < 6 * usual
    learn(replace(WORK, forwards=0, seconds=0, thinks=False), "cpu", "nothing to do", 1)
    assert math.isfinite(expected(WORK, "cpu", "nothing to do"))


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "about 1 s"),
        (0.2, "about 1 s"),
        (1, "about 1 s"),
        (1.01, "about 2 s"),
        (9, "about 9 s"),
        (9.9, "about 10 s"),
        (10, "about 10 s"),
        (10.1, "about 15 s"),
        (30, "about 30 s"),
        (86, "about 90 s"),
        (89.9, "about 90 s"),
        (90, "about 2 min"),
        (140, "about 2 min"),
        (155, "about 3 min"),
        (600, "about 10 min"),
        (7_200, "about 120 min"),
    ],
)
def test_a_time_in_words_is_no_more_exact_than_it_can_be(seconds: float, words: str) -> None:
    assert about(seconds) == words


# What ZeroGPU is asked for


def test_every_request_that_needs_a_gpu_is_known_here() -> None:
    assert set(ASKED) == {*MODES, *DRAFTS, *LYRICS, Separate}


@pytest.mark.parametrize("mode", ASKED)
def test_whatever_is_asked_has_time_for_a_cold_start_and_a_margin(mode: type[Asked]) -> None:
    seconds = gpu_seconds(request(mode))
    assert COLD_START_S * MARGIN < seconds < 300


@pytest.mark.parametrize("mode", MODES)
def test_a_song_is_asked_for_with_its_work_on_a_gpu_whatever_was_learnt(
    mode: type[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = request(mode)
    asked = gpu_seconds(made)
    assert asked == pytest.approx((COLD_START_S + Work.of(made).on(COSTS["cuda"])) * MARGIN)
    monkeypatch.setattr(costs, "_learned", {"cuda xl-sft": 9.0, "cuda demo": 9.0})
    assert gpu_seconds(made) == asked


FLOW = {"sub_mode": "flow_edit"}


@pytest.mark.parametrize(
    ("mode", "less", "more"),
    [
        (Generate, {}, {"inference_steps": 80}),
        (Generate, {}, {"duration_s": 600}),
        (Generate, {"thinking": False}, {"thinking": True}),
        (Generate, {}, {"loras": [lora(1)]}),
        (Generate, {"loras": [lora(1)]}, {"loras": [lora(1), lora(2)]}),
        (Cover, {}, {"inference_steps": 80}),
        (Extend, {}, {"extra_duration_s": 240}),
        (Edit, FLOW, FLOW | {"n_avg": 5}),
        (Edit, FLOW | {"n_max": 0.5}, FLOW),
        (Lyrics, {}, {"max_new_tokens": 2_000}),
        (Refine, {}, {"max_new_tokens": 2_000}),
        (Continue, {}, {"max_new_tokens": 2_000}),
    ],
)
def test_more_is_asked_for_more(mode: type[Asked], less: dict[str, Any], more: dict[str, Any]) -> None:
    assert gpu_seconds(request(mode, **more)) > gpu_seconds(request(mode, **less))


def test_more_is_asked_for_the_stems_of_a_longer_song() -> None:
    short = request(Separate)
    long = AudioClip(np.zeros((2, 60 * SAMPLE_RATE), np.float32), {})
    assert gpu_seconds(short.model_copy(update={"song": long})) > gpu_seconds(short)
