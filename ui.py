"""The page, drawn from the tables: widgets and words, no behaviour. `app.py` joins it to `modes.py`."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

import theme
from settings import Checkpoint
from song import GROUPS, KNOBS, TIME_SIGNATURES, Generate, Knob, Progress, controls, fields_of
from tooltips import tip

PLACE = {"cuda": "NVIDIA GPU", "mps": "Apple GPU", "cpu": "CPU"}
IDLE = "Describe a song and press Generate."


@dataclass
class Page:
    """The widgets that behaviour is attached to. `inputs` are in the order of the public endpoint."""

    inputs: dict[str, Any] = field(default_factory=dict)
    examples: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    generate: Any = None
    stop: Any = None
    status: Any = None
    player: Any = None
    download: Any = None
    metadata: Any = None


def words(k: Knob, row: Checkpoint) -> str:
    """The tooltip of a control, with what the loaded checkpoint makes of it."""
    return f"{tip(k)} {row.hints.get(k.name, '')}".strip()


def widget(k: Knob, default: Any, info: str, off: str = "", **look: Any) -> Any:
    """The widget for a control, chosen by its kind. `off` disables it and says why; `look` goes to the widget."""
    info = f"Off: {off}. {info}" if off else info
    common = {"label": k.label, "info": info, "value": default, "interactive": not off, "elem_id": k.name, **look}
    if k.kind == "choice" and len(k.choices) < 4:
        return gr.Radio(list(k.choices), **common)
    if k.kind == "choice":
        return gr.Dropdown([(TIME_SIGNATURES.get(c, c), c) for c in k.choices], **common)
    if k.kind == "bool":
        return gr.Checkbox(**common)
    if k.step:
        return gr.Slider(k.low, k.high, step=k.step, **common)
    if k.kind in ("int", "float") and not k.empty:  # gradio's Number cannot be empty: it shows 0 and sends it
        return gr.Number(precision=0, **common)
    return gr.Textbox(**{"placeholder": k.empty, **common})


def advanced(page: Page, row: Checkpoint, given: Mapping[str, Any], off: Mapping[str, str]) -> None:
    """The Advanced panel: the 21 knobs in their four groups, closed."""
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        for group in GROUPS:
            gr.Markdown(group, elem_classes="group-title")
            knobs = [k for k in KNOBS.values() if k.group == group]
            for pair in (knobs[i : i + 2] for i in range(0, len(knobs), 2)):
                with gr.Row():
                    for k in pair:
                        page.inputs[k.name] = widget(k, given[k.name], words(k, row), off.get(k.name, ""))


def generate_tab(page: Page, row: Checkpoint, given: Mapping[str, Any], off: Mapping[str, str]) -> None:
    """Words on the left, the take on the right; one below the other on a phone."""
    own = fields_of(Generate)

    def draw(name: str, **look: Any) -> None:
        page.inputs[name] = widget(own[name], given[name], words(own[name], row), **look)

    with gr.Row(equal_height=False):
        with gr.Column(scale=6):
            draw("prompt", lines=2, placeholder=row.examples[0][1] if row.examples else "")
            _examples(page, row)
            draw("lyrics", lines=6, placeholder="[verse]\n...\n\n[chorus]\n...")
            with gr.Row():
                draw("duration_s")
                k = own["instrumental"]
                page.inputs[k.name] = gr.Radio(
                    [("With vocals", False), ("Instrumental", True)],
                    value=given[k.name],
                    label="Vocal mode",
                    info=words(k, row),
                    elem_id=k.name,
                )
            advanced(page, row, given, off)
            with gr.Row():
                page.generate = gr.Button("Generate", variant="primary", elem_id="generate", scale=4)
                page.stop = gr.Button("Stop", interactive=False, elem_id="stop", scale=1)
        with gr.Column(scale=5):
            page.status = gr.HTML(status(IDLE), elem_id="status")
            page.player = gr.Audio(
                label="Your song",
                interactive=False,
                buttons=[],
                waveform_options=gr.WaveformOptions(**theme.WAVE),
                elem_id="player",
            )
            page.download = gr.DownloadButton("Download WAV", interactive=False, elem_id="download")
            with gr.Accordion("Metadata", open=True):
                page.metadata = gr.JSON(label="Recipe", show_label=False, elem_id="metadata")


def _examples(page: Page, row: Checkpoint) -> None:
    with gr.Row(elem_id="examples"):
        for label, prompt, bpm, key in row.examples:
            filled = {"prompt": prompt, "bpm": bpm, "keyscale": key}
            page.examples.append((gr.Button(label, size="sm"), filled))


def build(row: Checkpoint, device: str, given: Mapping[str, Any], off: Mapping[str, str]) -> tuple[gr.Blocks, Page]:
    """The page for a loaded checkpoint: `given` are the controls' defaults, `off` the knobs that cannot act and why."""
    page = Page()
    with gr.Blocks(title="ACE Music Studio", delete_cache=(600, 3600), analytics_enabled=False) as blocks:
        gr.HTML(header(row, device), elem_id="studio-header")
        with gr.Tabs(), gr.Tab("Generate", id="generate-tab"):
            generate_tab(page, row, given, off)
    page.inputs = {name: page.inputs[name] for name in controls(Generate)}
    return blocks, page


def header(row: Checkpoint, device: str) -> str:
    """Which checkpoint is loaded, where, and what to expect of it."""
    model = html.escape(f"{row.name} · {PLACE.get(device, device)}")
    return f'<h1>ACE Music Studio</h1><p class="model">{model}</p><p>{html.escape(row.note)}</p>'


def status(words: str, kind: str = "done", share: float | None = None) -> str:
    """The status line: words as text, never markup, with a bar when `share` (0 to 1) is known.

    `kind` is done, running or error; `AFTER` knows a running song by it.
    """
    role = "alert" if kind == "error" else "status"
    bar = "" if share is None else f'<div class="track"><div class="bar" style="width:{share:.1%}"></div></div>'
    return f'<p role="{role}" class="{kind}">{html.escape(words)}</p>{bar}'


def progress(event: Progress) -> str:
    """The status line of a running song: phase, step, time left."""
    words, share = event.phase, None
    if event.of:
        words += f" · step {event.step} of {event.of}"
        share = event.step / event.of
    if event.left_s is not None:
        words += f" · about {math.ceil(event.left_s)} s left"
    return status(words, "running", share)


# Both run in the browser: outputs are the status line, Generate and Stop. A line that still says running when the song's
# event has ended belongs to a song that was stopped.
_BUTTON = "{__type__: 'update', interactive: %s}"
BEFORE = f"() => [{json.dumps(status('Waiting for your turn', 'running'))}, {_BUTTON % 'false'}, {_BUTTON % 'true'}]"
AFTER = f"""line => [
  line.includes('class="running"') ? {json.dumps(status("Stopped. Nothing was kept."))} : line,
  {_BUTTON % "true"}, {_BUTTON % "false"}]"""
