"""The page: four song tabs with one Advanced panel and one output panel, and the Lyrics tab with its sheet. No behaviour: `app.py` attaches it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

import after_panel
import comparing
import costs
import lyrics_panel
import plan_panel
from after_panel import AfterPanel
from cards import status
from comparing import ComparePanel
from lyrics_panel import LyricsPanel
from plan_panel import PlanPanel
from player import player
from sharing import TITLE
from song import AT_ONCE, GROUPS, KNOBS, Generate
from sound import AudioClip
from tabs import Tab, tabs
from takes_panel import take_list
from tooltips import STACK, VARIANCE, idle
from widgets import Desk, note

PLACE = {"cuda": "NVIDIA GPU", "mps": "Apple GPU", "cpu": "CPU"}
LORAS = "LoRAs"
SUMMED = ("inference_steps", "infer_method", "seed")  # what the closed Advanced panel tells
LORA_FILES = "LoRA files (.safetensors, with adapter_config.json if there is one)"
IDLE = "Describe a song and press Generate."
BEAT_S = 600  # how often an open page says that its files are in use
SHORTCUTS = {
    "Ctrl Enter": "generate",
    "Ctrl .": "stop",
    "Space": "play or pause",
    "N": "next take",
    "Shift N": "take before",
}


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
    advanced: Any = None
    count: Any = None  # how many takes a song is to have
    songs: list[Any] = field(default_factory=list)  # what the song tabs share, and the Lyrics tab does not need
    loras: LoraPanel | None = None
    switch: Any = None
    last: Any = None  # the take on the screen: a `visits.Shown`
    key: Any = None  # of the visit
    takes: Any = None
    compare: ComparePanel | None = None
    ended: Any = None  # when the last song or draft ended, in ms
    again: Any = None  # pressed by the page itself when it comes back to a song that is being made
    keep: Any = None  # likewise, to keep what stands in the form
    beat: Any = None
    begun: list[Any] = field(default_factory=list)  # what Stop has to end
    lengths: Any = None  # of the recordings on the tabs, in seconds by mode
    pace: Any = None  # how long work takes on this machine
    wanted: Any = None  # which recordings a restored recipe was made from
    after: AfterPanel = field(default_factory=AfterPanel)
    open: Any = None
    metadata: Any = None

    def inputs(self, tab: Tab) -> dict[str, Any]:
        """What a tab's request is made from: its own controls, the knobs, the stack of LoRAs, how many takes."""
        return tab.inputs | self.knobs | {"loras": self.loras.stack, "takes": self.count}

    @property
    def form(self) -> list[Any]:
        """All that holds what a visitor set or wrote, but for recordings of an hour ago: what a reload must not lose."""
        tabs = [part for tab in self.tabs for part in (*tab.asides.values(), *tab.inputs.values())]
        own = [*self.knobs.values(), self.loras.stack, self.count, *self.lyrics.inputs.values(), self.lyrics.draft]
        return list(dict.fromkeys([*tabs, *own]))

    @property
    def screen(self) -> list[Any]:
        """All that shows the take and its neighbours, in the order of `keeping.screen`."""
        own = [self.player, self.download, self.metadata, *self.plan.shows, *self.after.shows]
        return [*own, self.takes, *self.compare.shows, self.last]

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

    @property
    def presses(self) -> list[Any]:
        """All that takes a turn when it is pressed."""
        return [*self.begins, *self.taking, self.again]


def build(desk: Desk, device: str) -> tuple[gr.Blocks, Page]:
    """The page for a loaded checkpoint."""
    page = Page()
    with gr.Blocks(title=TITLE, delete_cache=(600, 3600), analytics_enabled=False) as blocks:
        page.header = gr.HTML(header(desk, device, desk.writer.name), elem_id="studio-header")
        page.titled = partial(header, desk, device)
        with gr.Row(elem_id="studio", equal_height=False):
            with gr.Column(elem_id="rail", min_width=0):
                page.takes = take_list(label="Takes", elem_id="takes")
            with gr.Column(elem_id="form", min_width=0):
                form(page, desk, device)
            with gr.Column(elem_id="output", min_width=0):
                page.status = gr.HTML(status(IDLE), elem_id="status")
                with gr.Column(elem_id="take") as take:
                    output(page, desk)
                page.songs.append(take)
                lyrics_panel.sheet(page.lyrics)
        gr.HTML(keys(), elem_id="keys")
        page.key, page.beat = gr.Textbox("", visible=False, elem_id="key"), gr.Timer(BEAT_S)
        page.again = gr.Button("Go on", visible="hidden", elem_id="again-song")
        page.keep = gr.Button("Keep", visible="hidden", elem_id="keep-form")
        page.ended = gr.Number(0, label="Ended", visible="hidden", elem_id="ended")
        page.last, page.wanted = gr.State(), gr.State({})
        page.lengths, page.pace = gr.JSON({}, visible=False), gr.JSON({}, visible=False)
    return blocks, page


def form(page: Page, desk: Desk, device: str) -> None:
    """The tabs, what the song tabs share, and the buttons that begin and end."""
    with gr.Tabs(elem_id="modes", overflow_behavior="wrap") as page.switch:
        for tab, draw in tabs():
            with gr.Tab(tab.title, id=f"{tab.mode.mode}-tab") as tab.tab:
                if tab.mode.mode in desk.row.lacks:
                    note(desk.row.lacks[tab.mode.mode])
                draw(tab, desk)
            page.tabs.append(tab)
        with gr.Tab("Lyrics", id="lyrics-tab") as page.lyrics.tab:
            lyrics_panel.form(page.lyrics, desk)
    page.loras = loras(desk)
    page.advanced = advanced(page, desk)
    look = {"label": "How many takes", "choices": list(range(1, AT_ONCE + 1)), "elem_id": "count"}
    page.count = desk.draw(Generate, "takes", **look)
    page.songs = [page.loras.panel, page.advanced, page.count]
    with gr.Row(elem_id="act"):
        for tab in page.tabs:
            look = {"visible": tab.mode is Generate, "interactive": tab.mode.mode not in desk.row.lacks}
            tab.button = gr.Button(tab.action, variant="primary", elem_id=tab.mode.mode, scale=4, **look)
        page.lyrics.button = gr.Button(
            lyrics_panel.action(costs.DRAFT_S[device]),
            variant="primary",
            elem_id="draft-lyrics",
            scale=4,
            visible=False,
        )
        page.stop = gr.Button("Stop", interactive=False, elem_id="stop", scale=1, min_width=96)


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
    shown = (desk.given[Generate][name] for name in SUMMED)
    with gr.Accordion(summed(*shown), open=False, elem_id="advanced") as panel:
        for group in GROUPS:
            gr.Markdown(group, elem_classes="group-title")
            names = [k.name for k in KNOBS.values() if k.group == group]
            for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
                with gr.Row():
                    for name in pair:
                        page.knobs[name] = desk.draw(Generate, name)
    return panel


def summed(steps: int, method: str, seed: int) -> str:
    """What the closed Advanced panel says of the knobs in it."""
    return f"Advanced · {steps} steps, {method.upper()}, {'random seed' if seed < 0 else f'seed {seed}'}"


def output(page: Page, desk: Desk) -> None:
    """The take: the player, what can be done with it, and its recipe."""
    page.compare = comparing.draw()
    page.player = player(label="Your song", elem_id="player", elem_classes="player", empty="Your song stands here.")
    page.after.measured = gr.HTML(after_panel.TEACHING, elem_id="measured")
    with gr.Row(elem_id="files"):
        page.download = gr.DownloadButton("Download WAV", interactive=False, elem_id="download", scale=3)
        page.open = gr.UploadButton(
            after_panel.OPEN, file_types=list(after_panel.SONGS), elem_id="open", scale=1, min_width=130
        )
    with gr.Row(elem_id="again"):
        page.variance = gr.Slider(0, 1, 1, step=0.05, label="Variance", info=VARIANCE, elem_id="variance", scale=3)
        page.retake = gr.Button("Retake", interactive=False, elem_id="retake", scale=1)
    after_panel.draw(page.after, desk)
    with gr.Accordion("Recipe", open=False, elem_id="recipe"):
        page.metadata = gr.JSON(label="Recipe", show_label=False, elem_id="metadata")
    page.plan = plan_panel.draw()


def keys() -> str:
    """The keyboard shortcuts; `assets/studio.js` has them."""
    pairs = "".join(f"<li><kbd>{key}</kbd> {does}</li>" for key, does in SHORTCUTS.items())
    return f"<ul>{pairs}</ul>"


def header(desk: Desk, device: str, writer: str) -> str:
    """Which models sing and write, where, and what to expect of them."""
    place = PLACE.get(device, device) + (f", {desk.tier} tier" if desk.tier else "")
    models = html.escape(f"{desk.row.name} · {place} · lyrics by {writer}")
    return f'<h1>{TITLE}</h1><p class="model">{models}</p><p>{html.escape(desk.row.note)}</p>'


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
