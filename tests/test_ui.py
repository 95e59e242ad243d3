"""The page as drawn: widgets from the table, words as text. Behaviour is driven in test_browser.py."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest

import theme
import ui
from afters import AFTERS, After, Export, Normalise, Separate
from drafts import DRAFTS, Describe, Tidy, Write
from fields import OBJECT, fields_of
from lyricists import LYRICISTS
from lyrics import Lyrics
from remakes import MODES, Cover
from settings import CHECKPOINTS, SKETCHES
from song import KNOBS, Generate, SongRequest, controls
from sound import AudioClip
from tooltips import idle, tip
from widgets import Desk, widget

KINDS = {"int": gr.Number, "float": gr.Slider, "bool": gr.Checkbox, "text": gr.Textbox, "audio": gr.Audio}
REWORDED = {"instrumental": "Vocal mode"}  # a yes or no that reads better as two names


def desk(model: str = "xl-sft", off: Mapping[str, str] | None = None, **changed: object) -> Desk:
    """A desk with the table's own defaults, for a checkpoint of which something may be `changed`."""
    known = (*MODES, *DRAFTS, Lyrics, *AFTERS)
    given = {mode: {name: k.default for name, k in controls(mode).items()} for mode in known}
    return Desk(replace(CHECKPOINTS[model], **changed), LYRICISTS["smollm2"], given, off or {})


def drawn_tab(page: ui.Page, mode: type[SongRequest]) -> ui.Tab:
    return next(tab for tab in page.tabs if tab.mode is mode)


def notes(blocks: gr.Blocks) -> set[str]:
    """All lines of text on the page."""
    lines = [block.value for block in blocks.blocks.values() if isinstance(block, gr.HTML)]
    return {line for line in lines if isinstance(line, str)}


@pytest.mark.parametrize("name", KNOBS)
def test_each_knob_is_drawn_from_the_table(name: str) -> None:
    k = KNOBS[name]
    drawn = widget(k, k.default, desk().words(k))
    expected = gr.Textbox if k.empty else KINDS.get(k.kind, gr.Radio if len(k.choices) < 4 else gr.Dropdown)
    assert isinstance(drawn, gr.Slider if k.step else expected)
    assert drawn.label == k.label and drawn.value == k.default and drawn.interactive and drawn.elem_id == name
    assert k.range in drawn.info
    if k.step:
        assert (drawn.minimum, drawn.maximum, drawn.step) == (k.low, k.high, k.step)
    if k.choices:
        assert tuple(value for _, value in drawn.choices) == k.choices


@pytest.mark.parametrize("mode", MODES)
def test_each_control_of_a_mode_is_drawn_from_the_table(mode: type[SongRequest]) -> None:
    blocks, page = ui.build(desk(), "cuda")
    tab = drawn_tab(page, mode)
    for name, k in fields_of(mode).items():
        if name in ("loras", "takes"):
            continue  # one for all tabs
        drawn = tab.inputs[name]
        assert drawn.elem_id == (name if mode is Generate else f"{mode.mode}-{name}")
        if k.kind == OBJECT or name == "retakes":  # brought along from another song, in a line
            assert isinstance(drawn, gr.HTML) and drawn.value is None
            continue
        if k.kind == "pairs":
            assert isinstance(drawn, gr.HTML) and drawn.value == {"seconds": 0, "peaks": [], "regions": []}
            continue
        radio = k.kind == "choice" or name in REWORDED
        assert isinstance(drawn, gr.Radio if radio else gr.Slider if k.step else KINDS[k.kind])
        assert drawn.label == REWORDED.get(name, k.label) and drawn.value == k.default
        if k.kind == "audio":
            assert (drawn.type, drawn.sources) == ("filepath", ["upload", "microphone"])
            assert f"<p>{html.escape(tip(k))}</p>" in notes(blocks), "gr.Audio shows no tooltip of its own"
            continue
        assert drawn.interactive and tip(k) in drawn.info
        if k.step:
            assert (drawn.minimum, drawn.maximum, drawn.step) == (k.low, k.high, k.step)
        if radio:
            assert {value for _, value in drawn.choices} == set(k.choices or (True, False))


def test_how_many_takes_is_asked_once_for_all_tabs_beside_the_button() -> None:
    _, page = ui.build(desk(), "cuda")
    k, drawn = controls(Generate)["takes"], page.count
    assert isinstance(drawn, gr.Radio) and [value for _, value in drawn.choices] == [1, 2, 3, 4]
    assert drawn.value == k.default == k.low == 1 and k.high == 4 and tip(k) in drawn.info and drawn.interactive
    assert all(page.inputs(tab)["takes"] is drawn for tab in page.tabs) and drawn in page.songs, "lyrics have none"


def test_a_knob_that_cannot_act_is_disabled_with_the_reason() -> None:
    drawn = widget(KNOBS["thinking"], True, "Plans.", "needs the planner")
    assert not drawn.interactive and drawn.info == idle("needs the planner", "Plans.")
    assert drawn.info == "Off: needs the planner. Plans."
    _, page = ui.build(desk(off={"thinking": "needs the planner"}), "cuda")
    assert [name for name, drawn in page.knobs.items() if not drawn.interactive] == ["thinking"]


def test_the_demo_says_what_it_cannot_do() -> None:
    hints = CHECKPOINTS["demo"].hints
    told, (_, page) = set(), ui.build(desk("demo"), "cpu")
    for tab in page.tabs:
        for name, drawn in page.inputs(tab).items():
            assert hints.get(name, "") in (getattr(drawn, "info", None) or "")
            told |= {name} & hints.keys()
    assert told == hints.keys() > {"lyrics", "instrumental", "vocal_language", "target_lyrics", "cover_strength"}
    assert "The demo model does not sing" in hints["lyrics"]
    _, page = ui.build(desk(), "cuda")
    for tab in page.tabs:
        assert not [n for n, drawn in page.inputs(tab).items() if "demo" in (getattr(drawn, "info", None) or "")]


@pytest.mark.parametrize("mode", MODES)
def test_a_tab_asks_for_all_that_the_endpoint_takes(mode: type[SongRequest]) -> None:
    _, page = ui.build(desk("demo"), "cpu")
    assert page.inputs(drawn_tab(page, mode)).keys() == controls(mode).keys()


@pytest.mark.parametrize("mode", AFTERS)
def test_what_a_take_can_be_asked_for_is_drawn_from_the_table(mode: type[After]) -> None:
    _, page = ui.build(desk(), "cuda")
    drawn = page.after.inputs[mode]
    assert drawn.keys() == controls(mode).keys()
    for name, k in controls(mode).items():
        kind = (
            gr.Slider if k.step else gr.Textbox if k.kind == "text" else gr.Radio if len(k.choices) < 4 else gr.Dropdown
        )
        assert (
            isinstance(drawn[name], kind) and drawn[name].interactive and drawn[name].elem_id == f"{mode.mode}-{name}"
        )
        assert drawn[name].label == k.label and drawn[name].value == k.default and tip(k) in drawn[name].info
        if k.choices:
            assert {value for _, value in drawn[name].choices} == set(k.choices)
    button = page.after.buttons[mode]
    assert button.elem_id == mode.mode and not button.interactive, "there is no take yet"


def test_what_cannot_be_done_with_takes_here_is_off_and_says_why() -> None:
    missing = {Separate: "the package demucs is not installed", Normalise: "the package pyloudnorm is not installed"}
    blocks, page = ui.build(replace(desk(), no_afters=missing), "cuda")
    assert page.taking == [page.retake, page.after.buttons[Export]], "nothing may enable the others after a song"
    assert not any(page.after.buttons[mode].interactive for mode in missing)
    for reason in missing.values():
        assert any(f"Off: {reason}." in line for line in notes(blocks))


def test_every_widget_has_a_name_of_its_own() -> None:
    blocks, _ = ui.build(desk("demo"), "cpu")
    names = [block.elem_id for block in blocks.blocks.values() if getattr(block, "elem_id", None)]
    assert len(names) == len(set(names))


def test_each_tab_has_a_button_and_the_first_one_shows() -> None:
    _, page = ui.build(desk(), "cuda")
    assert [tab.mode for tab in page.tabs] == list(MODES)
    assert [tab.button.elem_id for tab in page.tabs] == ["generate", "cover", "extend", "edit"]
    assert [tab.button.visible for tab in page.tabs] == [True, False, False, False]
    assert [list(tab.drafts) for tab in page.tabs] == [[Write, Tidy], [Describe], [Describe], [Describe]]
    begin = [button for tab in page.tabs for button in (tab.button, *tab.drafts.values())]
    assert page.begins == [*begin, *page.lyrics.begins]
    assert [button.elem_id for button in page.taking] == ["retake", "normalise", "stems", "export"]
    assert page.buttons == [*page.begins, *page.taking, page.stop]
    assert not any(button.interactive for button in (*page.taking, page.stop)), "there is no take and no song yet"
    assert (page.variance.minimum, page.variance.maximum, page.variance.value) == (0, 1, 1)


def test_turbo_says_that_it_cannot_cover_or_morph() -> None:
    row = CHECKPOINTS["xl-turbo"]
    blocks, page = ui.build(desk("xl-turbo", row.off), "cuda")
    assert row.lacks.keys() == {"cover", "flow_edit"}
    assert {f"<p>{html.escape(reason)}</p>" for reason in row.lacks.values()} <= notes(blocks)
    button = drawn_tab(page, Cover).button
    assert not button.interactive and button not in page.buttons, "nothing may enable it after a song"
    assert len(page.begins) == 3 + 5 + 8


def test_what_was_read_of_a_recording_is_told_in_a_line() -> None:
    def line(seconds: float, **file: object) -> str:
        samples = np.zeros((2, round(seconds * 48_000)), np.float32)
        return ui.heard(AudioClip(samples, {"format": "FLAC", "sample_rate": 44_100, "channels": 2, **file}))

    assert "0:01.50 · FLAC · 44.1 kHz · stereo" in line(1.5)
    assert "2:05.00 · MP3 · 8 kHz · mono" in line(125, format="MP3", sample_rate=8000, channels=1)
    assert "6 channels" in line(1, channels=6)


def test_a_recording_that_a_restored_recipe_wants_is_told_from_another() -> None:
    clip = AudioClip(np.zeros((2, 48_000), np.float32), {"format": "WAV", "sample_rate": 48_000, "channels": 2})
    own, other = clip.facts["sha256"], "0" * 64
    assert "recipe" not in ui.heard(clip) and "recipe" not in ui.heard(clip, {"sha256": ""}), "it does not say which"
    assert "· the one of the recipe" in ui.heard(clip, {"sha256": own})
    assert "· not the one of the recipe, so it will be another song" in ui.heard(clip, {"sha256": other})


def test_without_a_planner_its_buttons_are_off_and_say_why() -> None:
    blocks, page = ui.build(replace(desk(), no_drafts=dict.fromkeys(DRAFTS, "needs the planner")), "cuda")
    for tab in page.tabs:
        assert not any(button.interactive for button in tab.drafts.values())
    assert not drawn_tab(page, Generate).asides["query"].interactive
    assert len([line for line in notes(blocks) if "needs the planner" in line]) >= 1
    assert len(page.begins) == 4 + 8, "nothing may enable them after a song"


def test_examples_fill_the_form_with_what_the_door_accepts() -> None:
    _, page = ui.build(desk("demo"), "cpu")
    assert [button.value for button, _ in drawn_tab(page, Generate).examples] == [label for label, *_ in SKETCHES]
    for row in CHECKPOINTS.values():
        for _, prompt, bpm, key in row.examples:
            request = Generate.parse({"prompt": prompt, "bpm": bpm, "keyscale": key})
            assert request.advanced.keyscale == key


def test_a_checkpoint_without_examples_is_drawn_too() -> None:
    _, page = ui.build(desk("demo", examples=()), "cpu")
    assert [len(tab.examples) for tab in page.tabs] == [0, 3, 2, 2], "the others have their own"


def test_examples_of_the_other_tabs_are_words_that_the_door_accepts() -> None:
    _, page = ui.build(desk("demo"), "cpu")
    for tab in page.tabs[1:]:
        assert all(Generate.parse(filled).prompt == filled["prompt"] for _, filled in tab.examples)
    assert all(Lyrics.parse({"brief": brief}).brief == brief for brief in page.lyrics.examples)
    assert page.lyrics.button.value == "Draft lyrics · about 45 s"


def test_the_header_says_model_place_and_what_to_expect() -> None:
    drawn = ui.header(desk("demo"), "cpu", "SmolLM2 135M")
    assert "Demo model · CPU · lyrics by SmolLM2 135M" in drawn
    assert "Demo model: instrumental sketches. On a GPU the studio sings." in drawn
    assert "<b>" not in ui.header(desk("demo", name="<b>"), "cpu", "<b>")


def test_the_theme_brings_no_font_or_file_from_elsewhere() -> None:
    look = theme.theme()
    sheet = look._get_theme_css() + theme.CSS.read_text()
    assert not re.findall(r"https?://(?!www\.w3\.org)", sheet)  # the SVG name space is a name
    assert not look._stylesheets or all("fonts.googleapis" not in s for s in look._stylesheets)
    assert {font.name for font in (look._font[0], look._font_mono[0])} == {"IBM Plex Sans", "IBM Plex Mono"}
    assert all(font.weights == (400, 700) for font in (look._font[0], look._font_mono[0]))


def test_the_style_sheets_stay_small() -> None:
    sheets = [path.read_text() for path in theme.ASSETS.glob("*.css")]
    assert sum(len(sheet.splitlines()) for sheet in sheets) <= 500
    assert sum(sheet.count("!important") for sheet in sheets) <= 20


def test_no_script_stands_in_the_value_of_a_widget() -> None:
    blocks, _ = ui.build(desk("demo"), "cpu")
    assert not [line for line in notes(blocks) if "<script" in line or "onclick" in line]


def test_the_closed_advanced_panel_says_what_is_in_it() -> None:
    blocks, _ = ui.build(desk("demo"), "cpu")
    labels = [block.label for block in blocks.blocks.values() if isinstance(block, gr.Accordion)]
    assert "Advanced · 27 steps, ODE, random seed" in labels
    assert ui.summed(8, "sde", 42) == "Advanced · 8 steps, SDE, seed 42"


def test_the_keyboard_shortcuts_are_listed_on_the_page() -> None:
    blocks, _ = ui.build(desk("demo"), "cpu")
    assert any("<kbd>Ctrl Enter</kbd> generate" in line for line in notes(blocks))


def test_what_a_visitor_sets_is_all_that_a_reload_brings_back() -> None:
    _, page = ui.build(desk("demo"), "cpu")
    form = set(page.form)
    assert len(form) == len(page.form)
    for tab in page.tabs:
        assert form >= {*page.inputs(tab).values(), *tab.asides.values()}
    assert form >= {*page.lyrics.inputs.values(), page.lyrics.draft}
