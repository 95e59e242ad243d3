"""The page as drawn: widgets from the table, words as text. Behaviour is driven in test_browser.py."""

from __future__ import annotations

import re
from dataclasses import replace

import gradio as gr
import pytest

import theme
import ui
from settings import CHECKPOINTS, SKETCHES
from song import KNOBS, Generate, Progress, fields_of

GIVEN = {name: k.default for name, k in (fields_of(Generate) | KNOBS).items()}
KINDS = {"int": gr.Number, "float": gr.Slider, "bool": gr.Checkbox, "text": gr.Textbox}


@pytest.mark.parametrize("name", KNOBS)
def test_each_knob_is_drawn_from_the_table(name: str) -> None:
    k = KNOBS[name]
    drawn = ui.widget(k, k.default, ui.words(k, CHECKPOINTS["xl-sft"]))
    expected = gr.Textbox if k.empty else KINDS.get(k.kind, gr.Radio if len(k.choices) < 4 else gr.Dropdown)
    assert isinstance(drawn, gr.Slider if k.step else expected)
    assert drawn.label == k.label and drawn.value == k.default and drawn.interactive and drawn.elem_id == name
    assert k.range in drawn.info
    if k.step:
        assert (drawn.minimum, drawn.maximum, drawn.step) == (k.low, k.high, k.step)
    if k.choices:
        assert tuple(value for _, value in drawn.choices) == k.choices


def test_a_knob_that_cannot_act_is_disabled_with_the_reason() -> None:
    drawn = ui.widget(KNOBS["thinking"], True, "Plans.", "needs the planner")
    assert not drawn.interactive and drawn.info.startswith("Off: needs the planner.")


def test_the_demo_says_that_it_does_not_sing() -> None:
    _, page = ui.build(CHECKPOINTS["demo"], "cpu", GIVEN, {})
    for name in ("lyrics", "instrumental", "vocal_language"):
        assert "The demo model does not sing" in page.inputs[name].info
    _, page = ui.build(CHECKPOINTS["xl-sft"], "cuda", GIVEN, {})
    assert not [name for name, drawn in page.inputs.items() if "demo" in drawn.info]


def test_inputs_stand_in_the_order_of_the_endpoint() -> None:
    _, page = ui.build(CHECKPOINTS["demo"], "cpu", GIVEN, {})
    assert list(page.inputs) == list(GIVEN)


def test_examples_fill_the_form_with_what_the_door_accepts() -> None:
    _, page = ui.build(CHECKPOINTS["demo"], "cpu", GIVEN, {})
    assert [button.value for button, _ in page.examples] == [label for label, *_ in SKETCHES]
    for row in CHECKPOINTS.values():
        for _, prompt, bpm, key in row.examples:
            request = Generate.parse({"prompt": prompt, "bpm": bpm, "keyscale": key})
            assert request.advanced.keyscale == key


def test_a_checkpoint_without_examples_is_drawn_too() -> None:
    _, page = ui.build(replace(CHECKPOINTS["demo"], examples=()), "cpu", GIVEN, {})
    assert page.examples == []


def test_the_header_says_model_place_and_what_to_expect() -> None:
    drawn = ui.header(CHECKPOINTS["demo"], "cpu")
    assert "Demo model · CPU" in drawn
    assert "Demo model: instrumental sketches. On a GPU the studio sings." in drawn
    assert "<b>" not in ui.header(replace(CHECKPOINTS["demo"], name="<b>"), "cpu")


def test_the_status_line_is_text_never_markup() -> None:
    drawn = ui.status("<img src=x onerror=alert(1)>", "error")
    assert "<img" not in drawn and 'role="alert"' in drawn


def test_the_progress_line_has_step_bar_and_time_left() -> None:
    drawn = ui.progress(Progress("Denoising", 9, 27, 12.2))
    assert "Denoising · step 9 of 27 · about 13 s left" in drawn and "width:33.3%" in drawn
    plain = ui.progress(Progress("Decoding"))
    assert "Decoding" in plain and "step" not in plain and "bar" not in plain


def test_the_theme_brings_no_font_or_file_from_elsewhere() -> None:
    look = theme.theme()
    sheet = look._get_theme_css() + theme.CSS.read_text()
    assert not re.findall(r"https?://(?!www\.w3\.org)", sheet)  # the SVG name space is a name
    assert not look._stylesheets or all("fonts.googleapis" not in s for s in look._stylesheets)
    assert {font.name for font in (look._font[0], look._font_mono[0])} == {"IBM Plex Sans", "IBM Plex Mono"}
    assert all(font.weights == (400, 700) for font in (look._font[0], look._font_mono[0]))


def test_the_style_sheet_stays_small() -> None:
    sheet = theme.CSS.read_text()
    assert len(sheet.splitlines()) <= 500 and sheet.count("!important") <= 20
