"""From a request to a song or a draft: when the planner is asked, what a song keeps of it, and doing without."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_planner
from test_planner import ASIDE, WARNING
from test_vocabulary import demo
from tiny_planner import Led

import planners
from ace_pipeline import Engine
from composer import NO_ROOM, answer
from drafts import Describe, Tidy, Write
from errors import BadOutput, EngineMissing, Stopped
from planner import Planner
from plans import Draft, Plan
from remakes import Cover, Extend
from settings import Checkpoint, PlannerRow
from song import Generate
from sound import AudioClip, Progress, Sound

one_thread = tiny_planner.one_thread
NOISE = np.random.default_rng(0).normal(0, 0.1, (2, 48_000 * 2)).astype(np.float32)
SONG = AudioClip(NOISE, {"format": "WAV"})
MISSING = EngineMissing("There is no room for the planner 1.7B.", "ACE_PLANNER=none does without.")


def ask(**values: Any) -> Generate:
    return Generate.parse({"prompt": "slow piano", "duration_s": 10, "seed": 1, "inference_steps": 8} | values)


def quiet(progress: Progress) -> None:
    """Nobody listens."""


def never() -> Planner:
    raise AssertionError("the planner was looked for")


def failing(error: BaseException) -> Any:
    def planner() -> Planner:
        raise error

    return planner


def sing(request: Any, planner: Any = tiny_planner.planner, engine: Engine | None = None) -> Sound:
    (sound,) = answer(engine or tiny.engine(), planner, request, quiet)
    assert isinstance(sound, Sound)
    return sound


@functools.cache
def planned() -> Sound:
    return sing(ask())


def equal(one: Sound, other: Sound) -> bool:
    return np.array_equal(one.samples, other.samples)


@functools.cache
def deaf() -> Engine:
    """A song model without an audio tokenizer, as turbo is."""
    pipe = tiny.pipeline()
    pipe.audio_tokenizer = None
    return Engine(pipe, Checkpoint("tiny", "Tiny", "tiny", "For tests.", random=True), "cpu")


# A planned song


def test_a_planned_song_is_another_than_an_unplanned_one() -> None:
    assert not equal(planned(), sing(ask(), None))
    assert not equal(planned(), sing(ask(thinking=False)))
    assert equal(planned(), sing(ask()))
    other = sing(ask(seed=2))
    assert not equal(planned(), other) and other.planner["plan"]["codes"] != planned().planner["plan"]["codes"]


def test_a_song_says_which_planner_chose_what() -> None:
    told = planned().planner
    assert told["name"] == "tiny" and list(told) == ["name", "chosen", "plan"]
    assert told["chosen"] == ["bpm", "caption", "keyscale", "timesignature", "vocal_language", "codes"]
    assert json.loads(json.dumps(told)) == told and len(told["plan"]["codes"].split()) == 50
    assert planned().samples.shape == (2, 480_000)


def test_the_plan_of_a_song_brought_back_is_that_song_to_the_bit_and_asks_no_planner() -> None:
    for saved in (planned().planner, json.dumps(planned().planner), planned().planner["plan"]):
        for planner in (never, None):
            again = sing(ask(plan=saved), planner)
            assert equal(again, planned())
            assert again.planner == {"chosen": [], "plan": planned().planner["plan"]}


def test_each_part_of_a_plan_is_heard() -> None:
    plan = Plan.model_validate(planned().planner["plan"])
    parts = {
        "caption": "x",
        "bpm": 31,
        "keyscale": "E major",
        "timesignature": "3",
        "vocal_language": "sv",
        "codes": (),
    }
    for name, value in parts.items():
        assert getattr(plan, name) != value
        changed = sing(ask(plan=plan.model_copy(update={name: value})), None)
        assert not equal(changed, planned()), name


def test_the_planners_seconds_are_part_of_the_songs() -> None:
    timings = planned().timings
    own = timings["thought_s"] + timings["sketch_s"]
    rest = sum(timings[name] for name in ("conditioning_s", "denoise_s", "decode_s"))
    assert own > 0 and timings["total_s"] >= own + rest - 1e-3
    assert "thought_s" not in sing(ask(), None).timings


def test_what_the_planner_has_to_say_is_said_first() -> None:
    sound = sing(ask(lyrics="la " * 1300), Led(size=lambda call: 1).planner)
    assert sound.warnings[0] == WARNING and len(sound.warnings) == 2


def test_a_listener_hears_the_planner_before_the_song() -> None:
    heard: list[str] = []
    list(answer(tiny.engine(), tiny_planner.planner, ask(), lambda progress: heard.append(progress.phase)))
    assert list(dict.fromkeys(heard)) == ["Planning", "Sketching", "Reading the words", "Denoising", "Decoding"]


def test_a_remake_is_given_facts_and_keeps_its_song() -> None:
    request = Cover.parse({"source_audio": SONG, "prompt": "slow piano", "seed": 1, "inference_steps": 8})
    sound = sing(request)
    assert sound.planner["chosen"] == ["bpm", "caption", "keyscale", "timesignature", "vocal_language"]
    assert sound.planner["plan"]["codes"] == "" and not equal(sound, sing(request, None))
    plain = Extend.parse({"source_audio": SONG, "seed": 1, "inference_steps": 8, "extra_duration_s": 5})
    assert sing(plain, never).planner is None


# Without


def test_a_song_that_leaves_nothing_to_the_planner_does_not_look_for_it() -> None:
    request = ask(thinking=False, **ASIDE)
    alone = sing(request, never)
    assert alone.planner is None and equal(alone, sing(ask(), None))


def test_a_song_does_without_a_planner_that_is_missing_and_says_so() -> None:
    sound = sing(ask(), failing(MISSING))
    assert sound.planner == {"missing": str(MISSING)}
    assert equal(sound, sing(ask(), None)) and set(sound.timings) == set(sing(ask(), None).timings)


class Full:
    """A model for which there is no memory."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def text(self, *_: Any) -> Any:
        raise self.error

    codes = text


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")], ids=repr
)
@pytest.mark.parametrize("thinks", [True, False])
def test_a_song_does_without_a_planner_that_does_not_fit(error: BaseException, thinks: bool) -> None:
    planner = Planner(Full(error), tiny_planner.vocabulary())
    sound = sing(ask(**({} if thinks else ASIDE)), lambda: planner)
    assert sound.planner == {"missing": NO_ROOM} and equal(sound, sing(ask(), None))


def test_a_plan_without_codes_stays_where_the_planner_is_missing() -> None:
    saved = Plan(caption="loud drums", bpm=180)
    sound = sing(ask(plan=saved), failing(MISSING))
    assert sound.planner == {"missing": str(MISSING), "chosen": [], "plan": saved.model_dump(mode="json")}
    assert equal(sound, sing(ask(plan=saved, thinking=False), never))
    assert not equal(sound, sing(ask(), None))


@pytest.mark.parametrize("error", [BadOutput("lost"), Stopped("Stopped."), ValueError("odd")], ids=repr)
def test_other_errors_end_the_song(error: BaseException) -> None:
    with pytest.raises(type(error), match=str(error)):
        sing(ask(), failing(error))
    with pytest.raises(type(error), match=str(error)):
        sing(ask(), lambda: Planner(Full(error), tiny_planner.vocabulary()))


def test_a_listener_may_stop_a_song_while_it_is_planned() -> None:
    def report(progress: Progress) -> None:
        if progress.phase == "Sketching":
            raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        list(answer(tiny.engine(), tiny_planner.planner, ask(), report))
    assert equal(sing(ask()), planned())


def test_a_song_model_without_codes_gets_the_facts_alone() -> None:
    sound = sing(ask(), engine=deaf())
    assert sound.planner["chosen"] == ["bpm", "caption", "keyscale", "timesignature", "vocal_language"]
    assert sound.planner["plan"]["codes"] == "" and "sketch_s" not in sound.timings
    facts = {"bpm", "caption", "keyscale", "timesignature", "vocal_language"}
    assert {name: sound.planner["plan"][name] for name in facts} == {
        name: planned().planner["plan"][name] for name in facts
    }
    assert sing(ask(**ASIDE), never, deaf()).planner is None
    with pytest.raises(EngineMissing, match="cannot read a plan's codes"):
        sing(ask(plan=planned().planner), never, deaf())


# Drafts


@functools.cache
def random_planner() -> Planner:
    """A planner with all 64,000 codes, which the tiny song model has, too."""
    return planners.load(PlannerRow("random:tiny", "random:tiny", random=True), "cpu", demo())


REQUESTS = [
    Write.parse({"query": "a sad song", "seed": 1, "instrumental": True}),
    Tidy.parse({"prompt": "slow piano", "seed": 1, "instrumental": True}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.mode)
def test_a_draft_is_the_planners(request_: Any) -> None:
    (draft,) = answer(tiny.engine(), tiny_planner.planner, request_, quiet)
    planner = tiny_planner.planner()
    make = planner.write if isinstance(request_, Write) else planner.tidy
    assert isinstance(draft, Draft) and draft == make(request_) and draft.instrumental


def test_a_recording_is_heard_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    import script

    monkeypatch.setattr(script, "LYRIC_TOKENS", 5)
    monkeypatch.setattr(script, "CAPTION_TOKENS", 5)
    heard: list[str] = []
    request = Describe.parse({"source_audio": SONG, "seed": 1})
    (draft,) = answer(tiny.engine(), random_planner, request, lambda progress: heard.append(progress.phase))
    assert draft == random_planner().describe(request, tiny.engine().codes(request.source_audio))
    assert list(dict.fromkeys(heard)) == ["Listening to the song", "Writing"]
    with pytest.raises(EngineMissing, match="cannot describe a song"):
        list(answer(deaf(), random_planner, request, quiet))


@pytest.mark.parametrize("request_", [*REQUESTS, Describe.parse({"source_audio": SONG})], ids=lambda asked: asked.mode)
def test_without_a_planner_there_are_no_drafts(request_: Any) -> None:
    with pytest.raises(EngineMissing) as missing:
        list(answer(tiny.engine(), None, request_, quiet))
    assert str(missing.value) == "There is no planner here. Set ACE_PLANNER to have one."
    with pytest.raises(EngineMissing, match="no room for the planner"):
        list(answer(tiny.engine(), failing(MISSING), request_, quiet))
