"""What stands under a finished take: what it turned out to be, and what can be made of it. Widgets and words only."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

import measures
from afters import AFTERS, After, Export, Normalise, Separate
from fields import fields_of
from formats import FORMATS
from player import Track, player, playing
from stems import NAMES
from tooltips import idle
from widgets import Desk, note

Made = tuple[Track, str]  # how a file sounds, and the file itself
PANEL = "Loudness, stems, export"
TEACHING = (
    "<ol><li>Say what you hear: style, instruments, mood. One example is enough to begin.</li>"
    "<li>Press Generate. Your take comes to stand here, and in the list of takes.</li>"
    "<li>Listen, retake, compare; send it to Cover, Extend or Edit; export it.</li></ol>"
)
AS_MADE = ("as made", "")
STEMS = "Vocals, drums, bass and the rest as files of their own; together they are the song again."
OPEN = "Open a song"
SONGS = (".wav", ".flac", ".ogg", ".mp3")


@dataclass
class AfterPanel:
    """The widgets that behaviour is attached to. `inputs` are the controls of each request, `buttons` what begins it."""

    measured: Any = None
    inputs: dict[type[After], dict[str, Any]] = field(default_factory=lambda: {mode: {} for mode in AFTERS})
    buttons: dict[type[After], Any] = field(default_factory=dict)
    able: list[Any] = field(default_factory=list)  # the buttons that can act here
    levelled: tuple[Any, Any] = (None, None)
    loudness: Any = None
    parts: dict[str, Any] = field(default_factory=dict)
    bundle: Any = None
    rest: Any = None
    file: Any = None

    @property
    def shows(self) -> list[Any]:
        """What belongs to a take, in the order of `shown`."""
        made = [*self.results(Normalise), *self.results(Separate), *self.results(Export)]
        return [self.measured, *made, self.inputs[Export]["title"]]

    def results(self, mode: type[After]) -> list[Any]:
        """Where what a request makes is shown."""
        if mode is Normalise:
            return [*self.levelled, self.loudness, self.inputs[Export]["target_lufs"]]
        parts = [widget for part in self.parts.values() for widget in part]
        return [*parts, self.bundle, self.rest] if mode is Separate else [self.file]


def draw(panel: AfterPanel, desk: Desk) -> None:
    """The panel, closed, with nothing made yet."""
    with gr.Accordion(PANEL, open=False, elem_id="after"):
        _loudness(panel, desk)
        _stems(panel, desk)
        _export(panel, desk)
    panel.able = [button for mode, button in panel.buttons.items() if mode not in desk.no_afters]


def _loudness(panel: AfterPanel, desk: Desk) -> None:
    gr.Markdown("Loudness", elem_classes="group-title")
    with gr.Row(elem_classes="after-row"):
        panel.inputs[Normalise]["target_lufs"] = desk.draw(Normalise, "target_lufs", choices=_lufs(Normalise), scale=3)
        panel.buttons[Normalise] = _button("Normalise", Normalise)
    _why(desk, Normalise)
    panel.levelled = _part("Levelled song", "levelled")
    panel.loudness = gr.HTML("", elem_id="levelled-line", elem_classes="heard")


def _stems(panel: AfterPanel, desk: Desk) -> None:
    gr.Markdown("Stems", elem_classes="group-title")
    with gr.Row(elem_classes="after-row"):
        with gr.Column(scale=3, min_width=200):
            note(STEMS)
        panel.buttons[Separate] = _button("Separate stems", Separate)
    _why(desk, Separate)
    with gr.Row(elem_id="stems-players"):
        for name in NAMES:
            with gr.Column(min_width=220):
                panel.parts[name] = _part(name.capitalize(), f"stem-{name}")
    panel.bundle = gr.DownloadButton("All stems (zip)", visible=False, elem_id="stems-zip", size="sm")
    panel.rest = gr.HTML("", elem_id="stems-line", elem_classes="heard")


def _export(panel: AfterPanel, desk: Desk) -> None:
    gr.Markdown("Export", elem_classes="group-title")
    own = panel.inputs[Export]
    with gr.Row():
        own["format"] = desk.draw(Export, "format", choices=[(form.name, key) for key, form in FORMATS.items()])
        own["title"] = desk.draw(Export, "title", max_lines=1)
    with gr.Row():
        own["fade_in_s"] = desk.draw(Export, "fade_in_s")
        own["fade_out_s"] = desk.draw(Export, "fade_out_s")
    with gr.Row():
        own["target_lufs"] = desk.draw(Export, "target_lufs", choices=[AS_MADE, *_lufs(Export)])
        own["sample_rate"] = desk.draw(Export, "sample_rate", choices=[("48 kHz", "48000"), ("44.1 kHz", "44100")])
    with gr.Row(elem_classes="after-row"):
        panel.buttons[Export] = _button("Export", Export)
        panel.file = gr.DownloadButton("Save", visible=False, variant="primary", elem_id="export-file")


def _button(words: str, mode: type[After]) -> gr.Button:
    """The button that begins a request; it can be pressed when there is a take."""
    return gr.Button(words, interactive=False, elem_id=f"{mode.mode}", scale=1, min_width=140)


def _why(desk: Desk, mode: type[After]) -> None:
    if mode in desk.no_afters:
        note(idle(desk.no_afters[mode], ""))


def _lufs(mode: type[After]) -> list[tuple[str, str]]:
    """The loudnesses to choose from, as words and values."""
    choices = fields_of(mode)["target_lufs"].choices
    return [(f"{name} LUFS".replace("-", "−"), name) for name in choices if name]


def _part(label: str, name: str) -> tuple[gr.HTML, gr.DownloadButton]:
    """A player for something that was made of the take, and the button that saves it; hidden until it is."""
    look = {"visible": False, "elem_classes": "player"}
    return (
        player(label=label, elem_id=name, **look),
        gr.DownloadButton(f"Save {label.lower()}", visible=False, elem_id=f"save-{name}", size="sm"),
    )


def shown(made: Mapping[str, Any] | None, title: str = "") -> list[Any]:
    """The panel for a take's metadata: nothing made of it yet; without a take nothing at all."""
    words = "".join(f"<li>{html.escape(line)}</li>" for line in measures.lines(made)) if made else ""
    return [
        gr.HTML(f"<ul>{words}</ul>" if words else TEACHING),
        *levelled(None)[:-1],
        gr.update(value=AS_MADE[1]),
        *parted(None),
        *exported(None),
        gr.Textbox(value="", placeholder=title),
    ]


def levelled(part: Made | None, told: Mapping[str, Any] | None = None) -> list[Any]:
    """The song at another loudness, with what was measured before and after; the export follows it."""
    if not part:
        return [*_made(None), "", gr.skip()]
    facts = told["loudness"]
    before, after = facts["before"], facts["after"]
    words = (
        f"{before['lufs']:.1f} LUFS, {before['true_peak_db']:.1f} dBTP before; "
        f"{after['lufs']:.1f} LUFS, {after['true_peak_db']:.1f} dBTP now. Exports follow it."
    ).replace("-", "−")
    return [*_made(part), _line(words, told), gr.update(value=told["after"]["target_lufs"])]


def parted(parts: Mapping[str, Made] | None, bundle: str = "", told: Mapping[str, Any] | None = None) -> list[Any]:
    """The stems, the zip of them all, and how much of the song was in none of the four."""
    shown = [widget for name in NAMES for widget in _made(parts[name] if parts else None)]
    if not parts:
        return [*shown, gr.DownloadButton(visible=False), ""]
    rest = f"{told['rest_db']:.1f} dB".replace("-", "−")
    words = f"What is in none of the four lies at {rest} of the song's level; it is in other, so that they add up."
    return [*shown, gr.DownloadButton(value=bundle, visible=True), _line(words, told)]


def _made(part: Made | None) -> list[Any]:
    """A player with its button, hidden without anything to play."""
    track, path = part or (None, None)
    return [
        gr.HTML(value=playing(track) if track else None, visible=bool(track)),
        gr.DownloadButton(value=path, visible=bool(track)),
    ]


def exported(path: str | None, told: Mapping[str, Any] | None = None) -> list[Any]:
    """The exported file, ready to be saved."""
    if not path:
        return [gr.DownloadButton(value=None, visible=False)]
    words = f"Save {Path(path).name} · {told['bytes'] / 1e6:.1f} MB"
    return [gr.DownloadButton(words, value=path, visible=True)]


def _line(words: str, told: Mapping[str, Any]) -> str:
    return f"<p>{html.escape(' '.join([words, *told['warnings']]))}</p>"
