"""How long work takes: more of anything takes longer, what is expected follows what was seen, words are no more exact."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import costs
from afters import Separate
from conditioning import TIMBRE_S
from costs import COLD_START_S, COSTS, MARGIN, Work, about, expected, gpu_seconds, learn, told
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


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has made no song yet."""
    monkeypatch.setattr(costs, "_beliefs", {})


def plainly(work: Work, device: str) -> float:
    """Its seconds by what was fitted alone."""
    return sum(work.phases(COSTS[device]).values())


def timings(work: Work, device: str, times: float = 1.0, **phases: float) -> dict[str, float]:
    """What a machine reports that takes so many times as long, in all or in some phases."""
    return {f"{name}_s": s * phases.get(name, times) for name, s in work.phases(COSTS[device]).items()}


@pytest.mark.parametrize("device", COSTS)
@pytest.mark.parametrize(
    "more",
    [{"forwards": 50}, {"seconds": 60}, {"heard": 60}, {"loras": 1}, {"codes": 150}, {"takes": 2}, {"cold": True}],
)
def test_more_of_anything_takes_longer_everywhere(device: str, more: dict[str, int]) -> None:
    assert plainly(replace(WORK, **more), device) > plainly(WORK, device)
    assert plainly(WORK, device) > plainly(replace(WORK, thinks=False), device) > 0
    if more != {"cold": True}:
        twice = replace(WORK, **{name: 2 * value for name, value in more.items()})
        assert plainly(twice, device) > plainly(replace(WORK, **more), device)


@pytest.mark.parametrize("device", COSTS)
def test_guidance_takes_longer_and_about_twice_as_long_at_most(device: str) -> None:
    guided, plain = (replace(WORK, guided=on).phases(COSTS[device]) for on in (True, False))
    assert plain["denoise"] < guided["denoise"] < 2.5 * plain["denoise"]
    assert plain | {"denoise": 0} == guided | {"denoise": 0}


def test_each_take_is_denoised_and_decoded_and_the_rest_is_done_once() -> None:
    one, three = (replace(WORK, takes=n, heard=20, loras=2, codes=150).phases(COSTS["cpu"]) for n in (1, 3))
    assert three == pytest.approx(one | {name: 3 * one[name] for name in ("denoise", "decode")})


def test_every_machine_has_every_cost_and_none_is_below_nothing() -> None:
    for own in COSTS.values():
        assert own.keys() == costs.PHASE.keys() and min(own.values()) >= 0


def test_the_work_of_a_song_is_read_from_its_request() -> None:
    made = request(Generate, inference_steps=50, duration_s=12, guidance_scale=1, loras=[lora(1), lora(2)])
    assert Work.of(made) == Work(50, 12, guided=False, codes=codes_for(12), loras=2)
    assert Work.of(made, planned=False, cold=True) == Work(50, 12, guided=False, thinks=False, loras=2, cold=True)
    assert Work.of(request(Cover, inference_steps=8)) == Work(8, 20, heard=20, thinks=False)
    assert Work.of(request(Cover, reference_audio=CLIP)) == Work(27, 20, heard=20 + TIMBRE_S, thinks=False)
    assert Work.of(request(Extend, extra_duration_s=10)) == Work(27, 30, heard=20, thinks=False)
    flow = {"sub_mode": "flow_edit", "inference_steps": 20, "n_min": 0.5, "n_avg": 3}
    morph = Work.of(request(Edit, **flow))
    assert morph == Work(60, 20, heard=20, thinks=False), "two forwards for each draw of a step that morphs"


def test_a_song_that_leaves_nothing_open_has_no_thought() -> None:
    off = dict.fromkeys(("thinking", "use_cot_caption", "use_cot_metas", "use_cot_language"), False)
    assert not Work.of(request(Generate, **off)).thinks
    assert Work.of(request(Generate, **off | {"use_cot_metas": True})).thinks
    assert not Work.of(request(Cover)).thinks and Work.of(request(Cover, prompt="rain")).thinks


# Learning


def test_until_a_song_was_made_what_was_fitted_is_gone_by() -> None:
    for device, own in COSTS.items():
        assert expected(WORK, device, "nobody's") == pytest.approx(plainly(WORK, device))
        assert told(device, "nobody's") == own


def test_what_was_seen_is_expected_of_the_same_work_on_the_same_machine_with_the_same_model() -> None:
    before = plainly(WORK, "cpu")
    learn(WORK, "cpu", "learnt", timings(WORK, "cpu", 3))
    assert expected(WORK, "cpu", "learnt") == pytest.approx(3 * before, rel=0.05)
    longer = replace(WORK, seconds=120)
    assert expected(longer, "cpu", "learnt") == pytest.approx(3 * plainly(longer, "cpu"), rel=0.05), "and of other work"
    assert expected(WORK, "cpu", "another") == before
    assert expected(WORK, "cuda", "learnt") == plainly(WORK, "cuda")


def test_phases_are_learned_one_by_one() -> None:
    work = replace(WORK, heard=30)
    learn(work, "cpu", "uneven", timings(work, "cpu", denoise=0.2, decode=4.0))
    for other in (work, Work(80, 10), Work(8, 240, heard=180)):
        true = sum(timings(other, "cpu", denoise=0.2, decode=4.0).values())
        assert expected(other, "cpu", "uneven") == pytest.approx(true, rel=0.05)
    own = told("cpu", "uneven")
    assert own["decode_s_per_s"] == pytest.approx(4 * COSTS["cpu"]["decode_s_per_s"], rel=0.05)
    assert (
        own["heard_s"] == pytest.approx(COSTS["cpu"]["heard_s"], rel=0.05) and own["load_s"] == COSTS["cpu"]["load_s"]
    )


def test_a_phase_that_a_song_had_no_part_of_is_left_alone() -> None:
    learn(replace(WORK, thinks=False), "cuda", "some", {"denoise_s": 1.0, "per_step_s": 0.1, "total_s": 99.0})
    learn(WORK, "cuda", "some", {"conditioning_s": 5.0})  # of reading alone: it says nothing of listening
    assert {name for name, cost in told("cuda", "some").items() if cost != COSTS["cuda"][name]} == {
        name for name, phase in costs.PHASE.items() if phase == "denoise" and COSTS["cuda"][name]
    }


def test_the_first_song_after_loading_says_nothing_of_the_next() -> None:
    learn(replace(WORK, cold=True), "cpu", "cold", timings(WORK, "cpu", 5))
    assert expected(WORK, "cpu", "cold") == plainly(WORK, "cpu")


def test_what_zero_gpu_is_asked_for_follows_what_songs_took_there() -> None:
    made = request(Generate, inference_steps=80, duration_s=600)
    before, work = gpu_seconds(made, "xl-sft"), Work.of(made)
    learn(work, "cuda", "xl-sft", timings(work, "cuda", 2))
    assert gpu_seconds(made, "xl-sft") == pytest.approx((COLD_START_S + 2 * plainly(work, "cuda")) * MARGIN, rel=0.05)
    assert gpu_seconds(made, "another") == gpu_seconds(made) == before


def test_songs_of_many_threads_are_all_learned_from() -> None:
    def songs() -> None:
        for _ in range(50):
            learn(WORK, "cpu", "threads", timings(WORK, "cpu", 2))

    threads = [threading.Thread(target=songs) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert expected(WORK, "cpu", "threads") == pytest.approx(2 * plainly(WORK, "cpu"), rel=0.2)
    assert len(costs._beliefs) <= len(WORK.parts()), "one belief for each phase, however many songs"


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
def test_a_song_is_asked_for_with_its_work_on_a_gpu(mode: type[Asked]) -> None:
    made = request(mode)
    assert gpu_seconds(made) == pytest.approx((COLD_START_S + plainly(Work.of(made), "cuda")) * MARGIN)


FLOW = {"sub_mode": "flow_edit"}


@pytest.mark.parametrize(
    ("mode", "less", "more"),
    [
        (Generate, {}, {"inference_steps": 80}),
        (Generate, {}, {"duration_s": 600}),
        (Generate, {"thinking": False}, {"thinking": True}),
        (Generate, {"takes": 2}, {"takes": 3}),
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
