"""The 21 knobs and each mode's own controls: the tables themselves, and row T7 of the fault table for each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from asking import read, refusal

from errors import InputError
from fields import SEED_MAX, Knob
from remakes import MODES, Cover, Edit, Extend, Remake
from song import KNOBS, Generate, controls
from sound import AudioClip

ON, OFF, NO_LIMIT = True, False, None
TABLE = {  # name: label, lowest, highest, default; typed from the design, so that a slip in song.py is seen
    "inference_steps": ("Inference steps", 8, 80, 27),
    "guidance_scale": ("Guidance scale (CFG)", 1, 15, 7.0),
    "infer_method": ("Inference method", NO_LIMIT, NO_LIMIT, "ode"),
    "seed": ("Seed", -1, 4_294_967_295, -1),
    "cfg_interval_start": ("CFG interval start", 0, 1, 0.0),
    "cfg_interval_end": ("CFG interval end", 0, 1, 1.0),
    "shift": ("Shift", 0.5, 3, 1.0),
    "use_adg": ("Use ADG", NO_LIMIT, NO_LIMIT, OFF),
    "thinking": ("Enable thinking", NO_LIMIT, NO_LIMIT, ON),
    "use_cot_caption": ("Let the LM rewrite the caption", NO_LIMIT, NO_LIMIT, ON),
    "use_cot_metas": ("Let the LM infer metadata", NO_LIMIT, NO_LIMIT, ON),
    "use_cot_language": ("Let the LM detect the vocal language", NO_LIMIT, NO_LIMIT, ON),
    "lm_temperature": ("LM temperature", 0, 2, 0.85),
    "lm_top_p": ("LM top-p", 0, 1, 0.9),
    "lm_top_k": ("LM top-k", 0, 1000, 0),
    "lm_cfg_scale": ("LM CFG scale", 1, 10, 2.0),
    "lm_negative_prompt": ("LM negative prompt", NO_LIMIT, 512, "NO USER INPUT"),
    "bpm": ("BPM", 30, 300, None),
    "keyscale": ("Key / scale", NO_LIMIT, NO_LIMIT, ""),
    "timesignature": ("Time signature", NO_LIMIT, NO_LIMIT, ""),
    "vocal_language": ("Vocal language", NO_LIMIT, NO_LIMIT, "unknown"),
}
STEPS = {"inference_steps": 1, "guidance_scale": 0.5, "lm_cfg_scale": 0.5, "shift": 0.1} | dict.fromkeys(
    ("cfg_interval_start", "cfg_interval_end", "lm_temperature", "lm_top_p"), 0.05
)
NUMBERS = [name for name, k in KNOBS.items() if k.kind in ("int", "float")]
every_knob = pytest.mark.parametrize("k", KNOBS.values(), ids=KNOBS)


def test_the_table_is_the_designs() -> None:
    assert {name: (k.label, k.low, k.high, k.default) for name, k in KNOBS.items()} == TABLE
    assert {name: k.step for name, k in KNOBS.items() if k.step} == STEPS
    assert {name: k.choices for name, k in KNOBS.items() if k.choices and name != "vocal_language"} == {
        "infer_method": ("ode", "sde"),
        "timesignature": ("", "2", "3", "4", "6"),
    }
    assert list(KNOBS) == list(TABLE)
    groups = [k.group for k in KNOBS.values()]
    assert groups == ["Diffusion"] * 4 + ["CFG schedule"] * 4 + ["5Hz LM"] * 9 + ["Music metadata"] * 4


def test_every_language_of_the_model_is_offered_the_common_ones_first() -> None:
    languages = KNOBS["vocal_language"].choices
    assert languages[:11] == ("unknown", "en", "zh", "ja", "ko", "es", "fr", "de", "it", "pt", "ru")
    assert len(languages) == len(set(languages)) == 51


@every_knob
def test_a_knob_holds_its_default_and_both_ends_of_its_range(k: Knob) -> None:
    ends = (ON, OFF) if k.kind == "bool" else (k.low, k.high) if k.name in NUMBERS else k.choices
    for value in (k.default, *ends):
        held = read(k.name, value)
        assert held == value or (k.name == "seed" and value == -1 and 0 <= held <= SEED_MAX)


def wrong(k: Knob) -> list[Any]:
    """Values that a knob cannot hold, the kind that gradio lets through among them."""
    values: list[Any] = [float("nan"), float("inf"), -float("inf"), [], {}, object()]
    if k.kind in ("int", "float"):
        values += [k.low - 1, k.low - 0.01, k.high + 0.01, k.high + 1, 1e300, -(10**300), ON, "x", "nan", "1e999"]
    if k.kind == "int":
        values += [k.low + 0.5, f"{k.low}.5"]
    if k.kind == "bool":
        values += ["", "maybe", 2, -1, 0.5]
    if k.kind == "choice":
        values += ["evil", "ode,sde", 7, ON]
    if k.kind == "text":
        values += [5, ON]
    return values if k.name == "bpm" else [*values, None]


@every_knob
def test_what_a_knob_cannot_hold_is_refused_with_its_label_and_limits(k: Knob) -> None:
    for value in wrong(k):
        message = refusal(**{k.name: value})
        assert message.startswith(f"{k.label} must be "), value
        assert (k.range if k.name != "keyscale" else "C major, F# minor or Am") in message, value
        assert "; it is " in message


def test_a_refusal_reads_as_a_sentence() -> None:
    assert refusal(bpm=7) == "BPM must be a whole number from 30 to 300, empty = auto; it is 7."
    assert refusal(inference_steps=27.5) == "Inference steps must be a whole number from 8 to 80; it is 27.5."
    assert refusal(shift=None) == "Shift must be a number from 0.5 to 3; it is empty."
    assert refusal(use_adg="maybe") == "Use ADG must be on or off; it is 'maybe'."
    assert refusal(timesignature="5") == "Time signature must be one of empty, 2, 3, 4, 6; it is '5'."
    assert refusal(vocal_language="xx") == "Vocal language must be one of the list; it is 'xx'."
    assert refusal(keyscale=5) == "Key / scale must be a key such as C major, F# minor or Am; it is 5."


@pytest.mark.parametrize("typed, on", [("false", OFF), ("0", OFF), (0, OFF), ("off", OFF), ("true", ON), (1, ON)])
def test_a_checkbox_over_the_api_means_what_it_says(typed: Any, on: bool) -> None:
    assert read("thinking", typed) is on
    assert read("instrumental", typed) is on


def test_numbers_may_come_as_text_or_as_whole_floats() -> None:
    assert read("inference_steps", "50") == read("inference_steps", 50.0) == 50
    assert read("shift", "0.7") == 0.7


def test_a_number_too_long_to_print_is_refused_as_well() -> None:
    for name in (*NUMBERS, "thinking", "timesignature", "prompt"):
        assert refusal(**{name: 10**5000})


@pytest.mark.parametrize("name", ["prompt", "lyrics", "lm_negative_prompt", "keyscale"])
def test_bytes_are_not_text(name: str) -> None:
    """Pydantic reads them as such, past our cleaning."""
    assert refusal(**{name: b"H minor; DROP\x00"})


# The own controls of Cover, Extend and Edit

REMAKES = (Cover, Extend, Edit)
OWN = {  # name: label, lowest, highest, default, step; typed from the design, so that a slip in remakes.py is seen
    Cover: {
        "source_audio": ("Song to cover", None, None, None, 0),
        "reference_audio": ("Timbre reference", None, None, None, 0),
        "prompt": ("Style prompt", None, 512, "", 0),
        "lyrics": ("Lyrics", None, 4096, "", 0),
        "cover_strength": ("Cover strength", 0, 1, 0.93, 0.01),
    },
    Extend: {
        "source_audio": ("Song to extend", None, None, None, 0),
        "prompt": ("Style prompt", None, 512, "", 0),
        "lyrics": ("Lyrics", None, 4096, "", 0),
        "extra_duration_s": ("Extra duration (s)", 5, 240, 30, 1),
        "side": ("Side", None, None, "after", 0),
        "context_s": ("Context (s)", 5, 240, 60, 1),
        "crossfade_s": ("Crossfade (s)", 0, 5, 2.0, 0.1),
    },
    Edit: {
        "source_audio": ("Song to edit", None, None, None, 0),
        "sub_mode": ("What to do", None, None, "repaint", 0),
        "prompt": ("Style prompt", None, 512, "", 0),
        "source_caption": ("Source caption", None, 512, "", 0),
        "source_lyrics": ("Source lyrics", None, 4096, "", 0),
        "target_lyrics": ("Target lyrics", None, 4096, "", 0),
        "regions": ("Regions", None, 16, (), 0),
        "repaint_mode": ("Repaint mode", None, None, "balanced", 0),
        "repaint_strength": ("Repaint strength", 0, 1, 0.5, 0.05),
        "n_min": ("n_min", 0, 1, 0.0, 0.05),
        "n_max": ("n_max", 0, 1, 1.0, 0.05),
        "n_avg": ("n_avg", 1, 5, 1, 1),
    },
}
CHOICES = {
    "side": ("after", "before"),
    "sub_mode": ("repaint", "flow_edit"),
    "repaint_mode": ("conservative", "balanced", "aggressive"),
}
OWN_NUMBERS = [(mode, name) for mode, rows in OWN.items() for name, row in rows.items() if row[1] is not None]
NO_PAIRS = {
    "regions": "Regions must be up to 16 pairs of start and end in seconds, such as [[12.5, 20]].",
    "retakes": "Retakes must be up to 16 pairs of a seed and a variance from 0 to 1, such as [[-1, 0.3]].",
}
NO_NUMBERS = [None, ON, OFF, "x", "", "nan", "\ud800", [], {}, 10**400, *map(float, ("nan", "inf", "-inf"))]


def remake(mode: type[Remake], **values: Any) -> Any:
    """A request of a mode on 20 s of sound."""
    source = AudioClip(np.zeros((2, 960_000), np.float32), {})
    return mode.parse({"source_audio": source, **({"regions": [[1, 2]]} if mode is Edit else {}), **values})


def refused(mode: type[Remake], **values: Any) -> str:
    with pytest.raises(InputError) as error:
        remake(mode, **values)
    message = error.value.message
    assert message[-1] == "." and "\n" not in message and len(message) < 200
    return message


LAST = ["retakes", "plan", "loras", "takes"]


def test_controls_stand_in_the_order_of_the_public_endpoint() -> None:
    assert [m.mode for m in MODES] == ["generate", "cover", "extend", "edit"]
    for mode in REMAKES:
        assert list(controls(mode)) == [*OWN[mode], *KNOBS, *LAST, *(["keep_words"] if mode is Edit else [])]
    assert list(controls(Generate)) == ["prompt", "lyrics", "duration_s", "instrumental", *KNOBS, *LAST]


@pytest.mark.parametrize("mode", REMAKES)
def test_a_modes_own_controls_are_the_designs(mode: type[Remake]) -> None:
    known = {n: k for n, k in controls(mode).items() if n in OWN[mode]}
    assert {n: (k.label, k.low, k.high, k.default, k.step) for n, k in known.items()} == OWN[mode]
    assert {n: k.choices for n, k in known.items() if k.choices} == {n: c for n, c in CHOICES.items() if n in known}
    assert {n for n, k in controls(mode).items() if k.last} == {*LAST} | ({"keep_words"} if mode is Edit else set())
    assert controls(mode)["retakes"].default == ()
    assert mode is not Edit or controls(mode)["keep_words"].default is True


@pytest.mark.parametrize("mode, name", OWN_NUMBERS)
def test_a_number_is_held_within_its_limits_and_refused_beyond(mode: type[Remake], name: str) -> None:
    label, low, high, *_ = OWN[mode][name]
    for value in (low, high):
        assert getattr(remake(mode, **{"n_max": 1, name: value} if mode is Edit else {name: value}), name) == value
    assert getattr(remake(mode, **{name: str(high)}), name) == high
    kind = "whole number" if name == "n_avg" else "number"
    for value in (low - 0.01, high + 0.01, 10**400, float("nan"), float("inf"), None, True, "x", "nan", "\ud800", []):
        message = refused(mode, **{name: value})
        assert message.startswith(f"{label} must be a {kind} from {low} to {high}; it is "), value


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_one_of_its_words(name: str) -> None:
    mode = Extend if name == "side" else Edit
    for value in CHOICES[name]:
        assert getattr(remake(mode, **{name: value}), name) == value
    for value in ("left", "", None, 1, ["after"], "\ud800"):
        assert refused(mode, **{name: value}).startswith(f"{OWN[mode][name][0]} must be one of {CHOICES[name][0]}, ")


def test_a_refusal_of_a_modes_own_control_reads_as_a_sentence() -> None:
    assert refused(Cover, cover_strength=1.2) == "Cover strength must be a number from 0 to 1; it is 1.2."
    assert refused(Extend, side="left") == "Side must be one of after, before; it is 'left'."
    assert refused(Edit, n_avg=1.5) == "n_avg must be a whole number from 1 to 5; it is 1.5."
    assert refused(Edit, keep_words="maybe") == "Keep the words around it must be on or off; it is 'maybe'."
    assert refused(Edit, source_caption="a" * 513) == "Source caption may hold 512 characters; yours has 513."
    assert refused(Edit, lyrics="la") == "'lyrics' is not a control of Edit."


@pytest.mark.parametrize(
    "value", ["x", " ", "[[1, 2]]", 5, 0, ON, {}, {"1": 2}, [1, 2], [[1]], [[1, 2, 3]], [[]], ["12"], [[1, 2]] * 17]
)
def test_what_are_no_pairs_is_refused_with_an_example(value: Any) -> None:
    assert refused(Edit, regions=value) == refused(Edit, regions=value, sub_mode="flow_edit") == NO_PAIRS["regions"]
    for mode in REMAKES:
        assert refused(mode, retakes=value) == NO_PAIRS["retakes"]
    assert refusal(retakes=value) == NO_PAIRS["retakes"]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=ascii)
def test_what_is_no_number_within_a_pair_is_refused(value: Any) -> None:
    for pair in ([value, 0.5], [3, value]):
        assert refused(Edit, regions=[[1, 2], pair]) == NO_PAIRS["regions"]
        assert refused(Cover, retakes=[[1, 0.5], pair]) == NO_PAIRS["retakes"]


@pytest.mark.parametrize("pair", [[-2, 0.5], [2**32, 0.5], [1.5, 0.5], [1, -0.01], [1, 1.01]])
def test_a_retake_keeps_the_limits_of_seed_and_variance(pair: list[float]) -> None:
    assert refused(Extend, retakes=[pair]) == NO_PAIRS["retakes"]
