"""Widgets drawn from the tables: one for each kind of control, with its tooltip. No behaviour."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from drafts import Describe, Tidy, Write
from fields import OBJECT, TIME_SIGNATURES, Knob
from lora_panel import stack_editor
from lora_presets import Preset
from lyricists import LyricistRow
from plan_panel import in_use
from regions import region_editor
from settings import Checkpoint
from song import Asked, controls
from tooltips import idle, tip

DRAFT_BUTTONS = {Write: "Write it for me", Tidy: "Tidy my lyrics and prompt", Describe: "Describe this audio"}


@dataclass(frozen=True)
class Desk:
    """What the loaded models make of the controls: their defaults, why some cannot act, which LoRAs come with them."""

    row: Checkpoint
    writer: LyricistRow
    given: Mapping[type[Asked], Mapping[str, Any]]
    off: Mapping[str, str]
    no_drafts: Mapping[type[Asked], str] = field(default_factory=dict)
    presets: Mapping[Preset, str] = field(default_factory=dict)  # those on offer, and why one cannot be had now
    no_afters: Mapping[type[Asked], str] = field(default_factory=dict)  # what cannot be done with takes, and why
    tier: str = ""  # how the song model lives on a card

    def words(self, k: Knob) -> str:
        """The tooltip of a control, with what the loaded models make of it."""
        return f"{tip(k)} {(self.row.hints | self.writer.hints).get(k.name, '')}".strip()

    def draw(self, mode: type[Asked], name: str, **look: Any) -> Any:
        """The widget of a mode's control; `look` goes to it."""
        k = controls(mode)[name]
        prefix = "" if k.group or mode.mode == "generate" else f"{mode.mode}-"
        look = {"elem_id": f"{prefix}{name}", **look}
        off = self.no_drafts.get(mode) or self.off.get(name, "")
        return widget(k, self.given[mode][name], self.words(k), off, **look)

    def drafter(self, mode: type[Asked], at: str) -> Any:
        """The button that asks the planner for words, on the tab `at`."""
        on = mode not in self.no_drafts
        return gr.Button(DRAFT_BUTTONS[mode], size="sm", interactive=on, elem_id=f"{at}-{mode.mode}", min_width=140)


def widget(k: Knob, default: Any, info: str, off: str = "", **look: Any) -> Any:
    """The widget for a control, chosen by its kind. `off` disables it and says why; `look` goes to the widget."""
    info = idle(off, info) if off else info
    common = {"label": k.label, "info": info, "value": default, "interactive": not off, "elem_id": k.name, **look}
    if k.kind == "audio":
        return recording(k, info, **look)
    if k.kind == OBJECT:
        return in_use(**look)
    if k.name == "retakes":
        return in_use("A retake", "Begin with the seed alone", **look)
    if k.kind == "loras":
        return stack_editor(label=k.label, **look)
    if k.kind == "pairs":
        return region_editor(label=k.label, **look)
    if k.kind == "choice" and len(k.choices) < 4:
        return gr.Radio(**{"choices": list(k.choices), **common})
    if k.kind == "choice":
        return gr.Dropdown(**{"choices": [(TIME_SIGNATURES.get(c, c), c) for c in k.choices], **common})
    if k.kind in ("bool", "int") and "choices" in look:
        return gr.Radio(**common)
    if k.kind == "bool":
        return gr.Checkbox(**common)
    if k.step:
        return gr.Slider(k.low, k.high, step=k.step, **common)
    if k.kind in ("int", "float") and not k.empty:  # gradio's Number cannot be empty: it shows 0 and sends it
        return gr.Number(precision=0, **common)
    return gr.Textbox(**{"placeholder": k.empty, **common})


def recording(k: Knob, info: str, **look: Any) -> Any:
    """Where a recording is dropped, chosen or made with a microphone; its tooltip as text, since gr.Audio takes none."""
    drop = gr.Audio(
        label=k.label,
        sources=["upload", "microphone"],
        type="filepath",
        buttons=[],
        waveform_options=gr.WaveformOptions(show_recording_waveform=False),  # it would decode the whole song
        elem_classes="recording",
        **look,
    )
    note(info)
    return drop


def note(words: str, **look: Any) -> Any:
    """A line of small text."""
    return gr.HTML(f"<p>{html.escape(words)}</p>", elem_classes="note", **look)
