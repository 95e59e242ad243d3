"""The Lyrics tab and the sheet of lyrics beside it: widgets and words only. `writing.py` attaches the behaviour."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

import costs
from lyrics import CHANGES, LANGUAGES, Lyrics
from remakes import Cover, Edit, Extend
from singing import Sung, sung
from song import Generate, SongRequest
from widgets import Desk, note

BRIEFS = {  # examples
    "Last train": "the last train home, rain on the window, somebody who waits",
    "Summer job": "the summer we painted boats and pretended to be rich",
    "Goodbye": "packing up a flat after a long love, without bitterness",
}
BRIEF = "the last train home, rain on the window, somebody who waits"
EMPTY = "[verse]\nYour words, or a draft. Everything here can be edited."
TONE = "tender, hopeful, a little tired"
USES: dict[type[SongRequest], str] = {  # which control of a song tab takes the lyrics
    Generate: "lyrics",
    Cover: "lyrics",
    Extend: "lyrics",
    Edit: "target_lyrics",
}
RHYMES = [("Strict (AABB)", "strict"), ("Loose", "loose"), ("None", "none")]
COUNTS = "Lines, syllables and seconds of singing stand here."


@dataclass
class LyricsPanel:
    """What behaviour is attached to. `uses` are the buttons that hand the lyrics on, `asks` what is asked before words are
    replaced: a row, the button that does it, the button that does not.
    """

    tab: Any = None
    inputs: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, Any] = field(default_factory=dict)  # buttons by the brief that they fill in
    button: Any = None
    more: Any = None
    resume: Any = None
    refine: dict[str, Any] = field(default_factory=dict)
    which: Any = None
    draft: Any = None
    counts: Any = None
    fit: Any = None
    uses: dict[type[SongRequest], Any] = field(default_factory=dict)
    asks: dict[type[SongRequest], tuple[Any, Any, Any]] = field(default_factory=dict)
    compare: Any = None
    metadata: Any = None
    column: Any = None

    @property
    def begins(self) -> list[Any]:
        """All that can begin a text."""
        return [self.button, self.more, self.resume, *self.refine.values()]


def action(seconds: float) -> str:
    """What the button says of a draft that takes so long."""
    return f"Draft lyrics · {costs.about(seconds)}"


def form(panel: LyricsPanel, desk: Desk) -> None:
    """What lyrics are asked for with."""

    def draw(name: str, **look: Any) -> None:
        panel.inputs[name] = desk.draw(Lyrics, name, **look)

    draw("brief", lines=4, placeholder=BRIEF)
    with gr.Row(elem_id="lyrics-examples", elem_classes="examples"):
        panel.examples = {brief: gr.Button(label, size="sm") for label, brief in BRIEFS.items()}
    draw("structure", lines=2)
    with gr.Row():
        draw("language", choices=[(name, key) for key, name in LANGUAGES.items()])
        draw("tone", lines=1, placeholder=TONE)
    with gr.Row():
        for name in ("verse_lines", "chorus_lines", "bridge_lines"):
            draw(name, min_width=150)
    draw("rhyme", choices=RHYMES)
    with gr.Accordion("LM parameters", open=False, elem_id="lyrics-lm"):
        for pair in (("temperature", "top_p"), ("top_k", "max_new_tokens")):
            with gr.Row():
                for name in pair:
                    draw(name)
        draw("seed", elem_id="lyrics-seed")


def sheet(panel: LyricsPanel) -> None:
    """The lyrics: variants, the words with their counts, what can be done with them."""
    with gr.Column(visible=False, elem_id="sheet") as panel.column:
        with gr.Row(elem_id="variants"):
            panel.which = gr.Radio([], label="Variants", show_label=False, visible=False, elem_id="which", scale=4)
            panel.more = gr.Button("+ variant", size="sm", elem_id="more", min_width=100, scale=1)
        with gr.Row(elem_id="words", equal_height=False):
            look = {"lines": 16, "max_lines": 40, "buttons": ["copy"], "scale": 3, "min_width": 280}
            panel.draft = gr.Textbox(label="Draft", placeholder=EMPTY, elem_id="draft", **look)
            with gr.Column(scale=2, min_width=200):
                panel.counts = gr.HTML(counted("", "en"), elem_id="counts")
        with gr.Row(elem_id="onward"):
            panel.resume = gr.Button("Continue from the cursor", size="sm", elem_id="resume", min_width=140)
            panel.fit = gr.Button("Does it fit the song?", size="sm", elem_id="fit", min_width=140)
        with gr.Row(elem_id="refine"):
            for change in CHANGES:
                look = {"size": "sm", "min_width": 100, "elem_id": f"refine-{change.replace(' ', '-')}"}
                panel.refine[change] = gr.Button(change.capitalize(), **look)
        with gr.Row(elem_id="uses"):
            for mode in USES:
                look = {"size": "sm", "min_width": 100, "elem_id": f"use-{mode.mode}"}
                panel.uses[mode] = gr.Button(f"Use in {mode.mode.capitalize()}", **look)
        for mode in USES:
            with gr.Row(visible=False, elem_id=f"ask-{mode.mode}") as row:
                note(f"{mode.mode.capitalize()} has lyrics already.")
                yes = gr.Button("Replace them", size="sm", min_width=120, elem_id=f"replace-{mode.mode}")
                no = gr.Button("Keep them", size="sm", min_width=120, elem_id=f"keep-{mode.mode}")
            panel.asks[mode] = (row, yes, no)
        with gr.Accordion("Side by side", open=False, elem_id="side-by-side"):
            panel.compare = gr.HTML(compared([]), elem_id="compare")
        with gr.Accordion("Metadata", open=False):
            panel.metadata = gr.JSON(label="Recipe", show_label=False, elem_id="lyrics-metadata")


def label(place: int) -> str:
    """How the variant at a place is called."""
    return f"v{place + 1}"


def chosen(sheets: Sequence[Mapping[str, Any]], at: int) -> Any:
    """The choice among variants."""
    names = [label(n) for n in range(len(sheets))]
    return gr.Radio(choices=names, value=label(at) if sheets else None, visible=len(sheets) > 1, interactive=True)


def counted(text: str, language: str) -> str:
    """What stands beside each section: lines, syllables, seconds; and the sum."""
    found = sung(text, language)
    if not found:
        return f"<p>{COUNTS}</p>"
    total = Sung("all", *(sum(getattr(s, name) for s in found) for name in ("lines", "syllables", "seconds")))
    head = "".join(f"<th scope='col'>{name}</th>" for name in ("Section", "Lines", "Syll.", "Sung in"))
    rows = "".join(map(_row, found))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody><tfoot>{_row(total)}</tfoot></table>"


def _row(section: Sung) -> str:
    name = html.escape(section.tag or "no tag")
    figures = (str(section.lines), str(section.syllables), f"≈ {section.seconds:.0f} s")
    return f"<tr><th scope='row'>{name}</th>{''.join(f'<td>{figure}</td>' for figure in figures)}</tr>"


def compared(sheets: Sequence[Mapping[str, Any]]) -> str:
    """All variants in columns."""
    if not sheets:
        return "<p>Variants of a draft stand here in columns.</p>"
    columns = (
        f"<section><h4>{label(n)}</h4><pre>{html.escape(s['text'])}</pre></section>" for n, s in enumerate(sheets)
    )
    return f"<div>{''.join(columns)}</div>"
