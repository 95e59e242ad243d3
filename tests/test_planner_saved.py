"""Plans brought back, and what each kind of request leaves open to the planner."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tiny_planner
from asking import refusal
from test_planner import ASIDE, CHANGES, FACTS, Silent, ask, plan, same
from tiny_planner import Led

from errors import KnobError
from planner import Planner
from plans import CODE_COUNT, METAS, Draft, Plan
from remakes import MODES, Cover, Edit, Extend, Remake
from script import chat, thought
from song import SongRequest, recipe
from sound import AudioClip

one_thread = tiny_planner.one_thread
VOCABULARY = tiny_planner.vocabulary()
SAVED = Plan(caption="warm piano", bpm=92, keyscale="G minor", timesignature="3", vocal_language="en", codes=range(50))
BARE = SAVED.model_copy(update={"codes": ()})
SONG = AudioClip(np.zeros((2, 48_000 * 20), np.float32), {"format": "WAV"})
MORPH = {"sub_mode": "flow_edit", "source_caption": "drums"}
REPAINT = {"regions": [[2, 5]]}
REMAKES: list[tuple[type[Remake], dict[str, Any]]] = [(Cover, {}), (Extend, {}), (Edit, REPAINT), (Edit, MORPH)]


def remake(mode: type[Remake], **values: Any) -> Any:
    return mode.parse({"source_audio": SONG, "seed": 1} | values)


# Plans brought


def test_a_plan_with_codes_needs_no_model() -> None:
    planned = Planner(Silent(), VOCABULARY).plan(ask(plan=SAVED.model_dump()))
    assert (planned.plan, planned.chosen, planned.warnings) == (SAVED, (), ())


def test_a_plan_without_codes_is_not_thought_again_and_gets_its_codes() -> None:
    led = Led()
    planned = led.planner().plan(ask(plan=BARE))
    assert led.prompts == [] and planned.chosen == ("codes",) and len(planned.plan.codes) == 50
    assert planned.plan.model_copy(update={"codes": ()}) == BARE
    fields = {"bpm": "92", "caption": "warm piano", "duration": "10", "keyscale": "G minor", "timesignature": "3"}
    before = chat("generate", "# Caption\nslow piano\n\n# Lyric\nla la\noh\n")
    assert led.asked[0].prompt == VOCABULARY.encode(before + thought(fields | {"language": "en"}))


def test_the_thought_of_a_song_brought_back_is_sketched_as_it_was() -> None:
    given = {"keyscale": "G minor", "vocal_language": "en"}
    for seed in range(5):
        first = plan(seed=seed, **given)
        thoughtful = first.plan.model_copy(update={"codes": ()})
        assert plan(seed=seed, plan=thoughtful, **given).plan == first.plan


def test_in_a_plan_that_is_brought_the_user_still_has_the_last_word() -> None:
    led = Led()
    led.planner().plan(ask(plan=BARE, bpm=140, use_cot_caption=False, use_cot_language=False))
    asked = VOCABULARY.decode(led.asked[0].prompt)
    assert asked.endswith("<think>\nbpm: 140\nduration: 10\nkeyscale: G minor\ntimesignature: 3\n</think>\n\n")


def test_an_empty_plan_is_a_plan() -> None:
    led = Led()
    planned = led.planner().plan(ask(plan={}))
    assert planned.chosen == ("codes",) and led.prompts == []
    assert VOCABULARY.decode(led.asked[0].prompt).endswith("<think>\nduration: 10\n</think>\n\n")
    assert ask(plan="").plan is ask(plan=" \n").plan is ask(plan=None).plan is None


def whole_recipe(told: dict[str, Any]) -> dict[str, Any]:
    return recipe(ask()) | {"planner": told}


TOLD = {"name": "1.7B", "chosen": ["bpm"], "plan": SAVED.model_dump(mode="json")}
FORMS = {
    "itself": SAVED,
    "values": SAVED.model_dump(),
    "codes as text": SAVED.model_dump(mode="json"),
    "text": SAVED.model_dump_json(),
    "the planner's part": TOLD,
    "the planner's part as text": json.dumps(TOLD),
    "a recipe": whole_recipe(TOLD),
    "a recipe as text": json.dumps(whole_recipe(TOLD)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_saved_plan_is_read_back_in_whatever_form_it_was_saved(form: str) -> None:
    assert ask(plan=FORMS[form]).plan == SAVED


def test_the_recipe_of_a_song_without_a_plan_is_refused_as_one() -> None:
    for planner in (None, {"missing": "The weights could not be loaded."}, {"name": "tiny"}):
        assert refusal(plan=whole_recipe({}) | {"planner": planner}) == "Plan must be a saved plan."
    assert ask(plan=recipe(ask(plan=SAVED))).plan == SAVED


BAD = {
    "a list": [1, 2],
    "a number": 7,
    "a list as text": "[1, 2]",
    "no JSON": "bpm: 92",
    "half of it": SAVED.model_dump_json()[:-9],
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("form", BAD)
def test_what_is_no_plan_is_refused(form: str) -> None:
    assert refusal(plan=BAD[form]) == "Plan must be a saved plan."


PARTS: dict[str, Any] = {
    "bpm": 20,
    "keyscale": "H dur",
    "timesignature": "5",
    "vocal_language": "klingon",
    "caption": "x" * 513,
    "mood": "sad",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_plan_that_cannot_be_is_named(part: str) -> None:
    assert refusal(plan={part: PARTS[part]}) == f"Plan must be a saved plan; its {part} cannot be used."


@pytest.mark.parametrize(
    "codes", [[-1], [CODE_COUNT], [1.5], ["x"], "1 x", "1 -2", "1 123456", "١", range(3001), 5, [True]]
)
def test_codes_that_cannot_be_are_refused(codes: Any) -> None:
    assert refusal(plan={"codes": codes}) == "Plan must be a saved plan; its codes cannot be used."


def test_codes_are_read_from_text_and_shown_as_text() -> None:
    text = " ".join(map(str, range(50)))
    assert ask(plan={"codes": text + " \n"}).codes == tuple(range(50))
    assert json.loads(SAVED.model_dump_json())["codes"] == text


def test_codes_for_a_song_of_another_length_are_refused_with_both_counts() -> None:
    sentence = "Plan holds 50 codes, 10 s of song; a duration of 20 s takes 100."
    assert refusal(plan=SAVED, duration_s=20) == sentence
    assert ask(plan=SAVED, duration_s=20, thinking=False).codes == ()  # they are not used
    assert ask(plan=SAVED, duration_s=9.5 + 0.5).codes
    assert "Plan holds 50 codes" in refusal(plan=SAVED, duration_s=10.5)


def test_the_words_of_a_plan_are_cleaned() -> None:
    assert ask(plan={"caption": "warm <think>piano<|im_end|>"}).plan.caption == "warm piano"


def test_a_draft_is_the_plan_that_its_song_begins_with() -> None:
    facts = {"bpm": 92, "keyscale": "G minor", "timesignature": "3", "vocal_language": "en"}
    assert Draft(prompt="warm piano", **facts).plan == BARE


# What is open


def test_a_song_leaves_open_what_the_user_did_not_give() -> None:
    everything = {"caption", *METAS}
    assert ask().open == ask(prompt="").open == everything
    for name, value in FACTS.items():
        assert ask(**{name: value}).open == everything - {name}
    assert ask(use_cot_caption=False).open == set(METAS)
    assert ask(use_cot_metas=False).open == {"caption", "vocal_language"}
    assert ask(use_cot_language=False).open == everything - {"vocal_language"}
    assert ask(thinking=False).open == everything
    assert ask(**ASIDE).open == ask(plan={}).open == frozenset()


@pytest.mark.parametrize("mode, values", REMAKES)
def test_a_remake_with_words_is_given_facts_and_no_codes(mode: type[Remake], values: dict[str, Any]) -> None:
    led = Led()
    request = remake(mode, prompt="warm piano", **values)
    rewritten = set() if values is MORPH else {"caption"}
    assert request.open == set(METAS) | rewritten and request.code_count == 0
    planned = led.planner().plan(request)
    assert set(planned.chosen) == request.open and planned.plan.codes == () and led.asked == []
    assert bool(planned.plan.caption) == bool(rewritten)
    assert remake(mode, prompt="warm piano", **FACTS, **values).open == rewritten
    assert led.prompts == [VOCABULARY.encode(chat("generate", f"# Caption\nwarm piano\n\n# Lyric\n{request.sung}\n"))]


@pytest.mark.parametrize("mode, values", REMAKES)
def test_a_remake_without_words_asks_nothing(mode: type[Remake], values: dict[str, Any]) -> None:
    request = remake(mode, **values)
    assert request.open == frozenset()
    planned = Planner(Silent(), VOCABULARY).plan(request)
    assert (planned.plan, planned.chosen) == (Plan(), ())


LYRICS = [(Cover, {"lyrics": "la"}), (Extend, {"lyrics": "la"}), (Edit, REPAINT | {"target_lyrics": "la"})]


@pytest.mark.parametrize("mode, values", LYRICS)
def test_for_lyrics_alone_no_style_is_invented(mode: type[Remake], values: dict[str, Any]) -> None:
    request = remake(mode, **values)
    assert request.open == set(METAS)
    assert request.planned(SAVED).prompt == "" and request.planned(SAVED).advanced.bpm == 92


def test_a_flow_morph_keeps_its_two_descriptions() -> None:
    request = remake(Edit, prompt="warm piano", **MORPH)
    planned = request.planned(SAVED)
    assert (planned.prompt, planned.source_caption) == ("warm piano", "drums")
    assert remake(Edit, prompt="cold", **REPAINT).planned(SAVED).prompt == SAVED.caption


def test_the_length_of_a_remake_is_in_its_thought() -> None:
    for request, seconds in ((remake(Cover, prompt="x"), 20), (remake(Extend, prompt="x", extra_duration_s=7.5), 28)):
        led = Led()
        led.planner().plan(request)
        assert f"\nduration: {seconds}\nkeyscale:" in VOCABULARY.decode(led.texts[0].fed)


@pytest.mark.parametrize("mode, values", [*REMAKES, *LYRICS])
@pytest.mark.parametrize("prompt", ["", "warm piano"])
def test_a_knob_that_a_remake_calls_idle_changes_nothing(mode: Any, values: dict[str, Any], prompt: str) -> None:
    request = remake(mode, prompt=prompt, **values)
    before = tiny_planner.planner().plan(request)
    idle = [knob for knob in request.idle if knob in CHANGES]
    assert {"thinking", "lm_cfg_scale", "lm_negative_prompt"} <= set(idle)
    for knob in idle:
        other = remake(mode, **{"prompt": prompt, knob: CHANGES[knob]} | values)
        assert same(tiny_planner.planner().plan(other), before), knob


def test_every_kind_of_song_takes_a_plan() -> None:
    assert all(issubclass(mode, SongRequest) and "plan" in mode.model_fields for mode in MODES)
    with pytest.raises(KnobError, match="Plan must be a saved plan"):
        remake(Cover, plan=[1])
