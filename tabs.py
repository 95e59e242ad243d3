"""The four song tabs: which controls a mode shows, and in which order. `ui.py` puts them on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from drafts import Describe, Tidy, Write
from remakes import Cover, Edit, Extend
from song import Asked, Generate, SongRequest
from tooltips import idle
from widgets import Desk, note

VERSES = "[verse]\n...\n\n[chorus]\n..."
IDEAS = {  # examples of the tabs that begin with a recording
    Cover: (
        ("Jazz trio", "late-night jazz trio, brushed drums, upright bass"),
        ("Synthwave", "synthwave, analog bass, gated drums, neon"),
        ("Lullaby", "lullaby, music box, warm pad, calm"),
    ),
    Extend: (
        ("Last chorus", "the same band, building to a last chorus"),
        ("Quiet outro", "calm outro, fading out, no drums"),
    ),
    Edit: (("Flute solo", "solo flute over the same band"), ("Drum break", "drum break, no melody")),
}
IDEA = "a sad song about rain, for a female voice"


@dataclass
class Tab:
    """What behaviour is attached to. `inputs` are the mode's own controls by name, `shown` what a choice brings up.

    `drafts` are the buttons that ask the planner for words, `asides` the controls for those alone, `back` undoes a draft.
    """

    mode: type[SongRequest]
    title: str
    action: str
    inputs: dict[str, Any] = field(default_factory=dict)
    examples: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    heard: dict[str, Any] = field(default_factory=dict)  # the lines that say what was read of a recording
    shown: dict[str, list[Any]] = field(default_factory=dict)
    drafts: dict[type[Asked], Any] = field(default_factory=dict)
    asides: dict[str, Any] = field(default_factory=dict)
    back: Any = None
    tab: Any = None
    button: Any = None

    def draw(self, desk: Desk, name: str, **look: Any) -> None:
        """One control of the mode."""
        self.inputs[name] = desk.draw(self.mode, name, **look)

    def recording(self, desk: Desk, name: str = "source_audio") -> None:
        """Where a recording comes in, and the line that says what was read of it."""
        self.draw(desk, name)
        self.heard[name] = gr.HTML("", elem_id=f"{self.mode.mode}-{name}-heard", elem_classes="heard")

    def ideas(self, filled: dict[str, dict[str, Any]]) -> None:
        """Examples that fill the form with one click, by what their buttons say."""
        with gr.Row(elem_id=f"{self.mode.mode}-examples", elem_classes="examples"):
            for label, values in filled.items():
                self.examples.append((gr.Button(label, size="sm"), values))

    def drafting(self, desk: Desk, mode: type[Asked], words: str = "") -> None:
        """A button that asks the planner for words, what it does or why it cannot, and the way back."""
        with gr.Row(elem_classes="drafting"):
            self.drafts[mode] = desk.drafter(mode, self.mode.mode)
            self.back = gr.Button(
                "Bring mine back", size="sm", visible=False, elem_id=f"{self.mode.mode}-back", min_width=140
            )
        if words:
            note(idle(desk.no_drafts[mode], words) if mode in desk.no_drafts else words)


def brought(tab: Tab, desk: Desk) -> None:
    """What a song can bring along from an earlier one: its plan, and how its noise was turned."""
    tab.draw(desk, "plan")
    tab.draw(desk, "retakes")


def generate(tab: Tab, desk: Desk) -> None:
    """A song from words."""
    row = desk.row
    with gr.Row(elem_id="idea"):
        tab.asides["query"] = desk.draw(Write, "query", lines=1, max_lines=1, scale=4, min_width=260, placeholder=IDEA)
        tab.drafts[Write] = desk.drafter(Write, "generate")
    tab.draw(desk, "prompt", lines=2, placeholder=row.examples[0][1] if row.examples else "")
    tab.ideas({label: {"prompt": prompt, "bpm": bpm, "keyscale": key} for label, prompt, bpm, key in row.examples})
    tab.draw(desk, "lyrics", lines=6, placeholder=VERSES)
    tab.drafting(desk, Tidy)
    with gr.Row():
        tab.draw(desk, "duration_s")
        choices = [("With vocals", False), ("Instrumental", True)]
        tab.draw(desk, "instrumental", label="Vocal mode", choices=choices)
    brought(tab, desk)


def cover(tab: Tab, desk: Desk) -> None:
    """A new version of a song."""
    tab.recording(desk)
    tab.drafting(
        desk, Describe, "Fills in what the planner hears: style, tempo, key, language, and words where you have none."
    )
    tab.recording(desk, "reference_audio")
    tab.draw(desk, "prompt", lines=2, placeholder="late-night jazz trio, brushed drums")
    tab.ideas({label: {"prompt": prompt} for label, prompt in IDEAS[Cover]})
    tab.draw(desk, "lyrics", lines=5, placeholder=VERSES)
    tab.draw(desk, "cover_strength")
    brought(tab, desk)


def extend(tab: Tab, desk: Desk) -> None:
    """More of a song."""
    tab.recording(desk)
    tab.drafting(desk, Describe, "Fills in what the planner hears: style, tempo, key, language.")
    tab.draw(desk, "prompt", lines=2, placeholder="the same band, building to a last chorus")
    tab.ideas({label: {"prompt": prompt} for label, prompt in IDEAS[Extend]})
    tab.draw(desk, "lyrics", lines=4, placeholder="empty = instrumental")
    with gr.Row():
        tab.draw(desk, "extra_duration_s")
        tab.draw(desk, "side", choices=[("After the end", "after"), ("Before the beginning", "before")])
    with gr.Row():
        tab.draw(desk, "context_s")
        tab.draw(desk, "crossfade_s")
    brought(tab, desk)


def edit(tab: Tab, desk: Desk) -> None:
    """A song changed in places, or as a whole."""
    tab.recording(desk)
    tab.drafting(
        desk, Describe, "Fills in what the planner hears: style, tempo, key, language, and words where you have none."
    )
    tab.draw(desk, "sub_mode", choices=[("Repaint", "repaint"), ("Flow morph", "flow_edit")])
    if "flow_edit" in desk.row.lacks:
        note(desk.row.lacks["flow_edit"])
    repaint, flow = [], []
    with gr.Column() as shown:
        repaint.append(shown)
        note("Regions: drag over the parts to make anew. Everything else stays bit for bit.")
        tab.draw(desk, "regions")
    with gr.Column(visible=False) as shown:
        flow.append(shown)
        tab.draw(desk, "source_caption", lines=2, placeholder="what the song sounds like now")
    tab.draw(desk, "prompt", lines=2, placeholder="what it shall sound like")
    tab.ideas({label: {"prompt": prompt} for label, prompt in IDEAS[Edit]})
    tab.draw(desk, "source_lyrics", lines=4, placeholder=VERSES)
    tab.draw(desk, "target_lyrics", lines=4, placeholder=VERSES)
    with gr.Column() as shown:
        repaint.append(shown)
        tab.draw(desk, "keep_words")
        with gr.Row():
            tab.draw(desk, "repaint_mode")
            tab.draw(desk, "repaint_strength")
    with gr.Column(visible=False) as shown:
        flow.append(shown)
        with gr.Row():
            for name in ("n_min", "n_max", "n_avg"):
                tab.draw(desk, name)
    brought(tab, desk)
    tab.shown = {"repaint": repaint, "flow_edit": flow}


def tabs() -> list[tuple[Tab, Callable[[Tab, Desk], None]]]:
    """Every song tab, not yet drawn, with the function that draws it."""
    return [
        (Tab(Generate, "Generate", "Generate"), generate),
        (Tab(Cover, "Cover", "Make the cover"), cover),
        (Tab(Extend, "Extend", "Extend the song"), extend),
        (Tab(Edit, "Edit", "Edit the song"), edit),
    ]
