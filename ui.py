"""The page: four song tabs with one Advanced panel and one output panel, and the Lyrics tab with its sheet. No behaviour: `app.py` attaches it."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

import after_panel
import lyrics_panel
import plan_panel
import theme
from after_panel import AfterPanel
from fields import fields_of
from lyrics_panel import LyricsPanel
from plan_panel import PlanPanel
from remakes import FLOW_OFF, SKETCH_OFF, STRENGTH_OFF, Edit
from settings import SKETCH
from song import GROUPS, KNOBS, Generate, SongRequest
from sound import AudioClip, Progress
from tabs import Tab, tabs
from tooltips import STACK, VARIANCE
from widgets import Desk, idle, note

PLACE = {"cuda": "NVIDIA GPU", "mps": "Apple GPU", "cpu": "CPU"}
LORAS = "LoRAs"
LORA_FILES = "LoRA files (.safetensors, with adapter_config.json if there is one)"
IDLE = "Describe a song and press Generate."


@dataclass
class Page:
    """The widgets that behaviour is attached to."""

    header: Any = None
    titled: Any = None  # the header, given who writes lyrics
    tabs: list[Tab] = field(default_factory=list)
    knobs: dict[str, Any] = field(default_factory=dict)
    stop: Any = None
    status: Any = None
    player: Any = None
    download: Any = None
    variance: Any = None
    retake: Any = None
    plan: PlanPanel | None = None
    lyrics: LyricsPanel = field(default_factory=LyricsPanel)
    songs: list[Any] = field(default_factory=list)  # what the song tabs share, and the Lyrics tab does not need
    loras: LoraPanel | None = None
    switch: Any = None
    last: Any = None  # the take on the screen: a `turns.Shown`
    wanted: Any = None  # which recordings a restored recipe was made from
    after: AfterPanel = field(default_factory=AfterPanel)
    open: Any = None
    metadata: Any = None

    def inputs(self, tab: Tab) -> dict[str, Any]:
        """What a tab's request is made from: its own controls, the knobs and the stack of LoRAs."""
        return tab.inputs | self.knobs | {"loras": self.loras.stack}

    @property
    def begins(self) -> list[Any]:
        """All that can begin a song or a draft."""
        begin = [button for tab in self.tabs for button in (tab.button, *tab.drafts.values())]
        return [*(button for button in begin if button.interactive), *self.lyrics.begins]

    @property
    def taking(self) -> list[Any]:
        """All that begins with the take on the screen."""
        return [self.retake, *self.after.able]

    @property
    def buttons(self) -> list[Any]:
        """All that can begin something, then Stop."""
        return [*self.begins, *self.taking, self.stop]


def build(desk: Desk, device: str) -> tuple[gr.Blocks, Page]:
    """The page for a loaded checkpoint."""
    page = Page()
    with gr.Blocks(title="ACE Music Studio", delete_cache=(600, 3600), analytics_enabled=False) as blocks:
        page.header = gr.HTML(header(desk, device, desk.writer.name), elem_id="studio-header")
        page.titled = partial(header, desk, device)
        with gr.Row(equal_height=False):
            with gr.Column(scale=6):
                with gr.Tabs(elem_id="modes") as page.switch:
                    for tab, draw in tabs():
                        with gr.Tab(tab.title, id=f"{tab.mode.mode}-tab") as tab.tab:
                            if tab.mode.mode in desk.row.lacks:
                                note(desk.row.lacks[tab.mode.mode])
                            draw(tab, desk)
                        page.tabs.append(tab)
                    with gr.Tab("Lyrics", id="lyrics-tab") as page.lyrics.tab:
                        lyrics_panel.form(page.lyrics, desk)
                page.loras = loras(desk)
                page.songs = [page.loras.panel, advanced(page, desk)]
                with gr.Row():
                    for tab in page.tabs:
                        tab.button = gr.Button(
                            tab.action,
                            variant="primary",
                            elem_id=tab.mode.mode,
                            scale=4,
                            visible=tab.mode is Generate,
                            interactive=tab.mode.mode not in desk.row.lacks,
                        )
                    page.lyrics.button = gr.Button(
                        "Draft lyrics", variant="primary", elem_id="draft-lyrics", scale=4, visible=False
                    )
                    page.stop = gr.Button("Stop", interactive=False, elem_id="stop", scale=1)
            with gr.Column(scale=5):
                page.status = gr.HTML(status(IDLE), elem_id="status")
                with gr.Column(elem_id="take") as take:
                    output(page, desk)
                page.songs.append(take)
                lyrics_panel.sheet(page.lyrics)
    return blocks, page


@dataclass
class LoraPanel:
    """The stack of LoRAs, and what can be put on it."""

    panel: Any
    stack: Any
    line: Any
    drop: Any
    presets: dict[str, Any] = field(default_factory=dict)


def loras(desk: Desk) -> LoraPanel:
    """The LoRA panel, closed: the stack, the presets that fit, and where files come in."""
    with gr.Accordion(LORAS, open=False, elem_id="loras-panel") as panel:
        note(STACK)
        made = LoraPanel(panel, desk.draw(Generate, "loras"), gr.HTML("", elem_id="loras-line"), None)
        if desk.presets:
            with gr.Row(elem_id="presets"):
                for preset, off in desk.presets.items():
                    look = {"size": "sm", "interactive": not off, "min_width": 100, "elem_id": f"preset-{preset.key}"}
                    made.presets[preset.key] = gr.Button(preset.name, **look)
            words = {
                preset.name: idle(off, preset.note) if off else preset.note for preset, off in desk.presets.items()
            }
            note(" ".join(f"{name}: {told}" for name, told in words.items()))
        made.drop = gr.File(
            label=LORA_FILES,
            file_count="multiple",
            file_types=[".safetensors", ".json"],
            height=150,
            elem_id="loras-drop",
        )
    return made


def counted() -> str:
    """How many LoRAs are heard, for the closed panel. In the browser."""
    heard = "(value?.loras ?? []).filter(lora => lora.strength !== 0).length"
    return f"value => {{ const n = {heard}; return {{__type__: 'update', label: n ? `{LORAS} · ${{n}} active` : '{LORAS}'}}; }}"


def advanced(page: Page, desk: Desk) -> Any:
    """The Advanced panel: the 21 knobs in their four groups, closed."""
    with gr.Accordion("Advanced", open=False, elem_id="advanced") as panel:
        for group in GROUPS:
            gr.Markdown(group, elem_classes="group-title")
            names = [k.name for k in KNOBS.values() if k.group == group]
            for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
                with gr.Row():
                    for name in pair:
                        page.knobs[name] = desk.draw(Generate, name)
    return panel


def output(page: Page, desk: Desk) -> None:
    """The take: the player, what can be done with it, and its recipe."""
    page.player = gr.Audio(
        label="Your song",
        interactive=False,
        buttons=[],
        waveform_options=gr.WaveformOptions(**theme.WAVE),
        elem_id="player",
    )
    page.after.measured = gr.HTML("", elem_id="measured")
    with gr.Row(elem_id="files"):
        page.download = gr.DownloadButton("Download WAV", interactive=False, elem_id="download", scale=3)
        page.open = gr.UploadButton(
            after_panel.OPEN, file_types=list(after_panel.SONGS), elem_id="open", scale=1, min_width=130
        )
    with gr.Row(elem_id="again"):
        page.variance = gr.Slider(0, 1, 1, step=0.05, label="Variance", info=VARIANCE, elem_id="variance", scale=3)
        page.retake = gr.Button("Retake", interactive=False, elem_id="retake", scale=1)
    page.plan = plan_panel.draw()
    after_panel.draw(page.after, desk)
    with gr.Accordion("Metadata", open=True):
        page.metadata = gr.JSON(label="Recipe", show_label=False, elem_id="metadata")


def header(desk: Desk, device: str, writer: str) -> str:
    """Which models sing and write, where, and what to expect of them."""
    models = html.escape(f"{desk.row.name} · {PLACE.get(device, device)} · lyrics by {writer}")
    return f'<h1>ACE Music Studio</h1><p class="model">{models}</p><p>{html.escape(desk.row.note)}</p>'


def status(words: str, kind: str = "done", share: float | None = None) -> str:
    """The status line: words as text, never markup, with a bar when `share` (0 to 1) is known.

    `kind` is done, running or error; `after` knows a running song by it.
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


def heard(clip: AudioClip, wanted: Mapping[str, Any] | None = None) -> str:
    """What was read of a recording: length, format, rate, channels; whether it is the one that a restored recipe `wanted`."""
    minutes, seconds = divmod(clip.seconds, 60)
    rate, channels = clip.file["sample_rate"] / 1000, clip.file["channels"]
    width = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
    words = f"{minutes:.0f}:{seconds:05.2f} · {clip.file['format']} · {rate:g} kHz · {width}"
    if wanted and wanted["sha256"]:
        same = clip.facts["sha256"] == wanted["sha256"]
        words += " · the one of the recipe" if same else " · not the one of the recipe, so it will be another song"
    return status(words)


# What follows runs in the browser. Outputs of `before` and `after` are the status line and the page's buttons. A line that
# still says running when the song's event has ended belongs to a song that was stopped.
def _update(**props: Any) -> dict[str, Any]:
    return {"__type__": "update", **props}


def before(buttons: int) -> str:
    """At once: nothing else can be begun, and the song can be stopped."""
    able = [_update(interactive=False)] * (buttons - 1) + [_update(interactive=True)]
    return f"() => {json.dumps([status('Waiting for your turn', 'running'), *able])}"


def after(begins: int, taking: int, said: str) -> str:
    """When a song has ended, one way or another; `said` is of one that was stopped.

    What needs a take is enabled by whoever knows whether there is one.
    """
    able = [_update(interactive=True)] * begins + [_update()] * taking + [_update(interactive=False)]
    stopped = json.dumps(status(said))
    return f"""line => [line.includes('class="running"') ? {stopped} : line, ...{json.dumps(able)}]"""


def only(page: Page, chosen: Any) -> str:
    """Of `tabbed` what belongs to a tab is shown: its button, and what song tabs share or the sheet of lyrics."""
    writes = chosen is page.lyrics
    buttons = [*page.tabs, page.lyrics]
    shown = [*(one is chosen for one in buttons), *[not writes] * len(page.songs), writes]
    return f"() => {json.dumps([_update(visible=visible) for visible in shown])}"


def tabbed(page: Page) -> list[Any]:
    """What comes and goes with tabs."""
    return [*(tab.button for tab in page.tabs), page.lyrics.button, *page.songs, page.lyrics.column]


def brought_up(tab: Tab) -> str:
    """What a choice of the tab brings up, in the order of `tab.shown`."""
    shown = {
        choice: [_update(visible=name == choice) for name, parts in tab.shown.items() for _ in parts]
        for choice in tab.shown
    }
    return f"choice => ({json.dumps(shown)})[choice]"


def resting(mode: type[SongRequest], said: str | bool) -> dict[str, str]:
    """The knobs that cannot act on a mode's tab, each with the reason.

    `said` is what decides there: what to do in Edit, whether the planner thinks in Generate; elsewhere nothing does.
    """
    if mode is Generate:
        return {} if said else dict.fromkeys(SKETCH[1:], "for thinking alone")
    return SKETCH_OFF | (FLOW_OFF if said == "flow_edit" else {})


def may_rest(desk: Desk) -> list[str]:
    """The knobs that cannot act on some tab but can on another."""
    return [name for name in KNOBS if name in SKETCH_OFF | FLOW_OFF and name not in desk.off]


def rests(desk: Desk, mode: type[SongRequest]) -> str:
    """The knobs of `may_rest` as they are on a mode's tab, by what `resting` calls `said`."""

    def drawn(name: str, off: dict[str, str]) -> dict[str, Any]:
        words = desk.words(KNOBS[name])
        return _update(interactive=name not in off, info=idle(off[name], words) if name in off else words)

    choices = fields_of(Edit)["sub_mode"].choices if mode is Edit else (True, False)
    known = {said: [drawn(name, resting(mode, said)) for name in may_rest(desk)] for said in choices}
    return f"said => ({json.dumps(known)})[said]"


def balanced(desk: Desk) -> str:
    """Repaint strength, disabled with the reason unless the repaint mode is balanced."""
    k = fields_of(Edit)["repaint_strength"]
    on, off = (
        _update(interactive=act, info=desk.words(k) if act else idle(STRENGTH_OFF, desk.words(k)))
        for act in (True, False)
    )
    return f"mode => mode === 'balanced' ? {json.dumps(on)} : {json.dumps(off)}"
