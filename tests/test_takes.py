"""Several takes at once: the very songs of their single requests, read and planned once, told one by one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_planner
import torch
from asking import ask, refusal

import composer
from ace_pipeline import Engine
from errors import BadOutput, Stopped
from fields import SEED_MAX
from lora_layouts import targets
from lora_stack import Model, admit
from plans import Plan
from remakes import Cover, Edit, Extend
from song import Generate, SongRequest
from sound import AudioClip, Progress, Sound

one_thread = tiny_planner.one_thread
SONG = torch.sin(torch.arange(6 * 48_000) / 20).repeat(2, 1).numpy() * np.float32(0.3)
CLIP, LONG = (AudioClip(SONG[:, : seconds * 48_000], {}) for seconds in (2, 6))
MODES: dict[str, tuple[type[SongRequest], dict[str, Any]]] = {
    "generate": (Generate, {"lyrics": "[verse]\nla", "duration_s": 10, "infer_method": "sde"}),
    "cover": (Cover, {"source_audio": CLIP, "retakes": [[5, 0.3]]}),
    "extend": (Extend, {"source_audio": LONG, "extra_duration_s": 5, "context_s": 5}),
    "repaint": (Edit, {"source_audio": CLIP, "regions": [[0.5, 1.2]]}),
    "morph": (Edit, {"source_audio": CLIP, "sub_mode": "flow_edit", "source_caption": "drums"}),
}
KNOBS = {"prompt": "slow piano", "seed": 11, "inference_steps": 8, "takes": 3}


def request(mode: str, **values: Any) -> Any:
    kind, own = MODES[mode]
    return kind.parse(KNOBS | own | values).heard()[0].planned(Plan())


def seeds(asked: SongRequest) -> list[int]:
    return [single.advanced.seed for single in asked.singles()]


def equal(some: list[Sound], others: list[Sound]) -> bool:
    pairs = zip(some, others, strict=True)
    return all(np.array_equal(one.samples, other.samples) for one, other in pairs)


@functools.cache
def songs(mode: str) -> list[Sound]:
    return list(tiny.engine().takes(request(mode)))


# What is asked


def test_a_take_is_asked_for_by_the_next_seed_and_is_one_alone() -> None:
    asked = ask(seed=7, takes=3, bpm=90)
    assert seeds(asked) == [7, 8, 9] and asked.singles()[1] == ask(seed=8, bpm=90)
    assert seeds(ask(seed=SEED_MAX - 1, takes=4)) == [SEED_MAX - 1, SEED_MAX, 0, 1], (
        "after the last seed comes the first"
    )
    assert ask(seed=7).singles() == (ask(seed=7),) and ask().takes == 1


def test_a_random_seed_draws_the_first_and_a_retake_turns_each() -> None:
    first, *others = seeds(ask(takes=4))
    assert 0 <= first <= SEED_MAX and others == [(first + n) % (SEED_MAX + 1) for n in (1, 2, 3)]
    assert [single.retakes for single in ask(takes=2, retakes=[[5, 0.3]]).singles()] == [((5, 0.3),)] * 2
    assert seeds(ask(takes=2, retakes=[[50, 1]])) == [50, 51], "a retake that changes everything is another seed"


@pytest.mark.parametrize("value", [0, 5, 1.5, "x", None, True, []])
def test_as_many_as_are_no_number_from_1_to_4_are_refused(value: Any) -> None:
    assert refusal(takes=value).startswith("Takes must be a whole number from 1 to 4; it is ")


# What is made


@pytest.mark.parametrize("mode", MODES)
def test_the_takes_are_to_the_bit_the_songs_of_their_seeds_made_alone(mode: str) -> None:
    alone = [tiny.engine().sing(single) for single in request(mode).singles()]
    assert len(alone) == 3 and equal(songs(mode), alone)
    assert not any(equal([one], [other]) for one, other in itertools.pairwise(alone)), "the control acts"


def test_a_take_says_which_it_is_and_a_song_alone_says_nothing() -> None:
    assert [sound.together for sound in songs("cover")] == [{"take": n, "of": 3} for n in (1, 2, 3)]
    assert tiny.engine().sing(request("cover")).together is None


def test_takes_that_are_there_already_are_left_out_and_the_others_keep_their_place() -> None:
    told: list[Progress] = []
    (last,) = tiny.engine().takes(request("cover"), told.append, done=2)
    assert equal([last], songs("cover")[2:]) and last.together == {"take": 3, "of": 3}
    assert {event.words for event in told if event.of} == {"Denoising, take 3 of 3", "Decoding, take 3 of 3"}


def test_steps_are_told_over_all_takes_and_the_words_say_which() -> None:
    told: list[Progress] = []
    list(tiny.engine().takes(request("cover"), told.append))
    words = [event.words for event in told]
    assert words.count("Reading the words") == words.count("Listening to the song") == 1, "once for all takes"
    steps = [event for event in told if event.of]
    assert {event.of for event in steps} == {24} and {event.step for event in steps} == set(range(25))
    assert [event.step for event in steps] == sorted(event.step for event in steps)
    assert [event.words for event in steps if event.step == 9] == ["Denoising, take 2 of 3"]
    assert [event.words for event in steps][-1] == "Decoding, take 3 of 3"
    early, late = (event.left_s for event in steps if event.step in (4, 24) and event.left_s is not None)
    assert early > 0 == late


def test_each_take_has_its_own_share_of_the_time() -> None:
    first, *others = (sound.timings for sound in songs("cover"))
    assert first.keys() - {"conditioning_s"} == others[0].keys() == others[1].keys()
    for spent in (first, *others):
        phases = [spent.get(f"{name}_s", 0) for name in ("conditioning", "denoise", "decode")]
        assert spent["total_s"] == pytest.approx(sum(phases), abs=0.02)
        assert spent["per_step_s"] == pytest.approx(spent["denoise_s"] / 8, abs=0.001)


def test_a_lora_is_heard_in_each_take_and_in_nothing_between_them(tmp_path: Any) -> None:
    engine = tiny.engine()
    model = Model("tiny", targets(engine.pipe.transformer.config))
    stack = [{"lora": admit(tiny.lora(tmp_path / "a.safetensors"), model)}]
    told: list[Progress] = []
    running = engine.takes(request("cover", loras=stack), told.append)
    first, alone = next(running), engine.sing(request("cover"))
    assert not equal([first], [alone]) and equal([alone], songs("cover")[:1]) and torch.is_grad_enabled(), (
        "whoever has a take is as before"
    )
    assert not equal([next(running)], songs("cover")[1:2])
    assert [event.phase for event in told].count("Attaching the LoRAs") == 1


def test_what_ends_one_take_leaves_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tiny.engine().pipe, tiny.engine().checkpoint, "cpu")
    real = engine.denoise
    monkeypatch.setattr(
        engine,
        "denoise",
        lambda score, one, report: real(score, one, report) * (float("nan") ** (one.advanced.seed == 12)),
    )
    running = engine.takes(request("cover"))
    assert equal([next(running)], songs("cover")[:1])
    with pytest.raises(BadOutput, match="seed 12"):
        next(running)

    def stop(event: Progress) -> None:
        if event.step > 8:
            raise Stopped("Stopped.")

    running = tiny.engine().takes(request("cover"), stop)
    assert equal([next(running)], songs("cover")[:1])
    with pytest.raises(Stopped):
        next(running)


# What is planned


class Counting:
    """A planner that counts what it is asked."""

    def __init__(self) -> None:
        self.own, self.asked = tiny_planner.planner(), []
        self.name = self.own.name

    def plan(self, request: SongRequest, sketches: bool, report: Any) -> Any:
        self.asked.append(request.advanced.seed)
        return self.own.plan(request, sketches, report)


def composed(asked: SongRequest, planner: Any) -> Iterator[Sound]:
    return composer.answer(tiny.engine(), planner, asked, lambda progress: None)


def test_one_plan_serves_all_takes_and_goes_with_each() -> None:
    planner, asked = Counting(), Generate.parse(KNOBS | {"duration_s": 10, "takes": 2})
    first, second = composed(asked, lambda: planner)
    assert planner.asked == [11], "by the first seed"
    assert first.planner == second.planner and len(first.planner["plan"]["codes"].split()) == 50
    assert "thought_s" in first.timings and not {"thought_s", "sketch_s"} & second.timings.keys()
    (alone,) = composed(
        Generate.parse(KNOBS | {"duration_s": 10, "takes": 1, "seed": 12, "plan": second.planner}), None
    )
    assert equal([alone], [second]), "its plan makes it again alone"
    (whole,) = composed(Generate.parse(KNOBS | {"duration_s": 10, "takes": 1}), lambda: planner)
    assert equal([whole], [first]), "the first is what one take alone would be"
