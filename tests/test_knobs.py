"""The 21 knobs: the table itself, and row T7 of the fault table for each of them."""

from __future__ import annotations

from typing import Any

import pytest
from asking import read, refusal

from song import KNOBS, SEED_MAX, Knob

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
