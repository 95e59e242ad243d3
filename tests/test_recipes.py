"""Recipes: what is written into a file is canonical, what is read out of one is let in control by control."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import modes
import recipes
from afters import Export
from errors import KnobError
from fields import Stacked, fields_of
from remakes import MODES, Cover, Edit, Extend
from settings import VERSION
from song import Generate, SongRequest, controls
from sound import SAMPLE_RATE, AudioClip, Lora, Sound

HELD = np.random.default_rng(0).uniform(-0.5, 0.5, (2, SAMPLE_RATE)).astype(np.float32)
CLIP = AudioClip(HELD, {"sha256": "0" * 64, "format": "WAV", "sample_rate": 48_000, "channels": 2})
LORA = Lora("somewhere/x.safetensors", "Warm tape", "a" * 64, 1000, 4, {"layer": 1.0})
MODEL = {"key": "demo", "id": "demo", "revision": None, "device": "cpu", "dtype": "float32"}
VALUES = {
    Generate: {
        "prompt": "calm piano",
        "lyrics": "[verse]\nla la",
        "duration_s": 12.5,
        "bpm": 92,
        "retakes": [[5, 0.25]],
    },
    Cover: {"source_audio": CLIP, "reference_audio": CLIP, "prompt": "jazz", "cover_strength": 0.4},
    Extend: {"source_audio": CLIP, "extra_duration_s": 7, "side": "before", "crossfade_s": 0.5},
    Edit: {
        "source_audio": CLIP,
        "regions": [[0.1, 0.4], [0.5, 0.75]],
        "keep_words": False,
        "repaint_mode": "aggressive",
    },
}
KNOBS = {"seed": 7, "infer_method": "sde", "keyscale": "F# minor", "cfg_interval_start": 0.25, "lm_top_k": 40}


@pytest.fixture(scope="module")
def given() -> dict[type[SongRequest], dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACE_MODEL", "demo")
        return {mode: modes.defaults(mode) for mode in MODES}


def request(mode: type[SongRequest], **own: Any) -> SongRequest:
    return mode.parse({**VALUES[mode], **KNOBS, **own})


def sound(**own: Any) -> Sound:
    return Sound(HELD, SAMPLE_RATE, {"total_s": 1.5}, MODEL, **own)


def written(mode: type[SongRequest] = Generate, **own: Any) -> dict[str, Any]:
    return json.loads(recipes.text(recipes.of(request(mode, **own), sound(), HELD)))


def spoilt(**changes: Any) -> str:
    """A recipe whose controls were changed by hand."""
    raw = written()
    return json.dumps({**raw, "controls": {**raw["controls"], **changes}})


@pytest.mark.parametrize("mode", MODES)
def test_every_control_comes_back(mode: type[SongRequest], given: Any) -> None:
    asked = request(mode, loras=[{"lora": LORA, "strength": 0.6}])
    found = recipes.read(recipes.text(recipes.of(asked, sound(), HELD)), given)
    assert found.mode is mode and found.told == ()
    recordings = {name: CLIP for name, k in controls(mode).items() if k.kind == "audio" and getattr(asked, name)}
    assert found.needs.keys() == recordings.keys()
    assert mode.parse({**found.values, **recordings}) == asked.model_copy(update={"loras": ()})
    assert found.loras == ({"name": "Warm tape", "sha256": "a" * 64, "strength": 0.6},)
    assert found.values.keys() == {n for n, k in controls(mode).items() if k.kind not in ("audio", "loras")}


def test_a_recipe_has_nothing_that_differs_between_two_renderings() -> None:
    one, other = (
        recipes.of(request(Generate), Sound(HELD, SAMPLE_RATE, {"total_s": t}, MODEL, ("slow",) * n), HELD)
        for t, n in ((1.0, 0), (9.0, 1))
    )
    assert recipes.text(one) == recipes.text(other)
    assert written()["version"] == 1 and written()["app"] == VERSION and written()["model"] == MODEL


def test_the_plan_that_was_followed_is_the_one_that_is_kept() -> None:
    plan = {"caption": "calm grand piano", "bpm": 92, "codes": "1 2 3"}
    made = recipes.of(request(Generate), sound(planner={"name": "the planner 1.7B", "plan": plan}), HELD)
    assert made["controls"]["plan"] == plan
    assert recipes.of(request(Generate), sound(planner={"missing": "no room"}), HELD)["controls"]["plan"] is None


def test_a_take_knows_itself_and_its_parents() -> None:
    child = AudioClip(HELD, {**CLIP.file, "take": "b" * 64})
    made = written(Cover, source_audio=child)
    assert made["parents"] == {"source_audio": "b" * 64}
    assert made["take"]["sha256"] == CLIP.facts["sha256"] and made["take"]["seconds"] == 1.0
    assert written(Cover)["parents"] == {}


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("calm piano", "calm piano"),
        ("", "Song 7"),
        ("a, b,\n c. ", "a, b, c"),
        ("word " * 40, "word " * 11 + "word"),
        ("x" * 200, "x" * 60),
    ],
)
def test_a_title_is_the_beginning_of_the_prompt(prompt: str, title: str) -> None:
    assert recipes.title_of(request(Generate, prompt=prompt)) == title


def test_an_instrumental_has_no_lyrics_to_show() -> None:
    assert written()["lyrics"] == "[verse]\nla la"
    assert written(instrumental=True)["lyrics"] == ""
    assert written(Extend)["lyrics"] == ""


@pytest.mark.parametrize(
    ("control", "value", "said"),
    [
        ("bpm", 9_999, "BPM must be"),
        ("guidance_scale", math.nan, "Guidance scale (CFG) must be"),
        ("guidance_scale", math.inf, "Guidance scale (CFG) must be"),
        ("inference_steps", "many", "Inference steps must be"),
        ("inference_steps", 10**400, "Inference steps must be"),
        ("keyscale", "H minor; DROP", "Key / scale must be"),
        ("infer_method", {"a": []}, "Inference method must be"),
        ("instrumental", "perhaps", "Instrumental must be"),
        ("prompt", ["<img src=x onerror=alert(1)>"], "Style prompt must be"),
        ("prompt", "y" * 600, "Style prompt may hold 512 characters"),
        ("retakes", [[1, 2, 3]], "Retakes must be"),
        ("plan", {"codes": [-1]}, "Plan must be a saved plan"),
        ("plan", {"evil": 1}, "Plan must be a saved plan"),
        ("duration_s", 3, "Duration (s) must be"),
        ("seed", True, "Seed must be"),
    ],
)
def test_what_cannot_be_used_is_left_out_with_a_sentence(control: str, value: Any, said: str, given: Any) -> None:
    found = recipes.read(spoilt(**{control: value}), given)
    assert len(found.told) == 1 and found.told[0].startswith("Not restored: ") and said in found.told[0]
    assert found.values[control] == given[Generate][control]
    assert found.values["lm_top_k"] == 40, "the rest is restored"


def test_text_out_of_a_recipe_is_cleaned_like_any_other(given: Any) -> None:
    found = recipes.read(spoilt(prompt="a\u202e b\x00<|im_start|>"), given)
    assert found.values["prompt"] == "a b" and found.told == ()


def test_an_interval_the_wrong_way_round_is_left_out(given: Any) -> None:
    found = recipes.read(spoilt(cfg_interval_start=0.9, cfg_interval_end=0.1), given)
    assert found.told == ("Not restored: the CFG interval, whose start is above its end.",)
    assert (found.values["cfg_interval_start"], found.values["cfg_interval_end"]) == (0.0, 1.0)


def test_unknown_controls_are_named_and_left_out(given: Any) -> None:
    found = recipes.read(spoilt(**{"warp": 9, "<b>": 1}), given)
    assert found.told == ("Unknown here and left out: warp, <b>.",)
    assert "warp" not in found.values


def test_what_a_recipe_does_not_say_stands_at_its_default(given: Any) -> None:
    raw = written()
    del raw["controls"]["bpm"]
    found = recipes.read(json.dumps(raw), given)
    assert found.values["bpm"] is None and found.told == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "The recipe comes from a newer studio (version 2): what this one knows of it is restored."),
        ({"version": "two"}, "The recipe does not say its version; it is read as one of today."),
        ({"version": True}, "The recipe does not say its version; it is read as one of today."),
        ({"app": "0.0.9"}, f"Made with studio 0.0.9; this is {VERSION}."),
    ],
)
def test_another_studio_is_told(changes: dict[str, Any], said: str, given: Any) -> None:
    found = recipes.read(json.dumps({**written(), **changes}), given)
    assert found.told == (said,) and found.values["prompt"] == "calm piano"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "This file holds no recipe."),
        ("", "This file holds no recipe."),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "This file holds no recipe."),
        ('{"schema":"another"}', "This file holds no recipe."),
        ('{"schema":"ace-music-studio","controls":[]}', "This file holds no recipe."),
        (
            '{"schema":"ace-music-studio","controls":{},"mode":"<b>polka"}',
            "is for <b>polka, which this studio cannot do",
        ),
        ('{"schema":"ace-music-studio","controls":{},"mode":["generate"]}', 'is for ["generate"], which'),
    ],
)
def test_what_is_no_recipe_is_refused(text: str | None, said: str, given: Any) -> None:
    with pytest.raises(KnobError, match=None) as refused:
        recipes.read(text, given)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("entry", "kept", "said"),
    [
        ({"name": "X", "sha256": "c" * 64, "strength": 0.5}, 0.5, ""),
        ({"name": "X", "sha256": "c" * 64, "strength": 99}, fields_of(Stacked)["strength"].default, "Strength must be"),
        ({"name": "X", "sha256": "../../etc"}, None, "X, because the recipe does not say which LoRA that is"),
        ("junk", None, "a LoRA, because the recipe does not say which LoRA that is"),
    ],
)
def test_loras_are_named_by_their_hash(entry: Any, kept: float | None, said: str, given: Any) -> None:
    found = recipes.read(spoilt(loras=[entry]), given)
    assert [lora["strength"] for lora in found.loras] == ([] if kept is None else [kept])
    assert (said in found.told[0]) if said else found.told == ()


def test_how_a_file_was_exported_is_restored_too(given: Any) -> None:
    after = Export.parse({"format": "flac", "title": "Rain", "fade_out_s": 3, "target_lufs": -14}).model_dump(
        mode="json", exclude={"advanced", "lm"}
    )
    assert recipes.read(json.dumps({**written(), "after": after}), given).after == after
    wrong = recipes.read(json.dumps({**written(), "after": {**after, "format": "exe"}}), given)
    assert wrong.after == {**after, "format": "mp3"} and "Format must be" in wrong.told[0]
    assert recipes.read(json.dumps({**written(), "after": {"stem": "bass"}}), given).after == {}


def test_facts_of_a_recipe_are_short_plain_values(given: Any) -> None:
    raw = {**written(), "model": {"id": "x" * 999, "nested": {}, "n": math.nan, "y" * 50: 1, "ok": 3}, "take": "no"}
    found = recipes.read(json.dumps(raw), given)
    assert found.model == {"id": "x" * 59 + "…", "ok": 3} and found.take == {}


def test_a_source_says_no_more_than_is_known_of_it(given: Any) -> None:
    raw = written(Cover)
    raw["controls"]["source_audio"] |= {"sha256": "<script>", "seconds": "NaN", "file": {"format": "EXE"}}
    found = recipes.read(json.dumps(raw), given)
    assert found.needs["source_audio"] == {"sha256": "", "seconds": None, "format": ""}
    assert found.needs["reference_audio"] == {"sha256": CLIP.facts["sha256"], "seconds": 1.0, "format": "WAV"}
