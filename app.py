"""ACE Music Studio: joins the page to the modes and serves it.

`python app.py` is the studio on this machine and on a Hugging Face Space alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

# Before gradio and torch are imported: no telemetry, and the few operations that MPS lacks run on the CPU.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import api
import audio_io
import backend
import bringing
import drafting
import finish
import finishing
import lora_stack
import modes
import stacking
import writing
from afters import AFTERS
from errors import EngineError, StudioError
from remakes import Edit
from settings import SettingError, read
from song import Generate, SongRequest
from sound import AudioClip, Take
from turns import GPU_QUEUE, QUIET, READ_QUEUE, Shown, begins, ends

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page
    from widgets import Desk

log = logging.getLogger("ace.app")

PEAKS = 400  # of a waveform to mark regions on


def studio() -> Any:
    """The page with its behaviour: a `gr.Blocks`, not yet launched."""
    import gradio as gr

    import checkpoints
    import ui
    from widgets import Desk

    given = {mode: modes.defaults(mode) for mode in (*modes.HANDLERS, *AFTERS)}
    models = (backend.checkpoint(), backend.lyricist_row())
    backend.stems_row()  # what is wrong with its setting is said now, not under a song
    off = (modes.unavailable(), drafting.unavailable(), stacking.offered(), finish.unavailable())
    desk = Desk(*models, given, *off)
    blocks, page = ui.build(desk, checkpoints.device())
    with blocks:
        page.last, page.wanted, begun = gr.State(), gr.State({}), []
        for tab in page.tabs:
            inputs = page.inputs(tab)
            begun.append(sings(page, tab.button, singer(tab.mode, list(inputs)), list(inputs.values())))
            begun += drafting.joins(page, tab)
            listens(page, tab)
            for button, filled in tab.examples:
                targets = [inputs[name] for name in (*filled, "plan")]
                button.click(lambda filled=filled: [*filled.values(), None], None, targets, queue=False, **QUIET)
        api.joins(GPU_QUEUE, READ_QUEUE)
        begun.append(sings(page, page.retake, retake, [page.last, page.variance]))
        begun += finishing.joins(page, desk)
        begun += writing.joins(page)
        page.stop.click(None, cancels=begun, **QUIET)
        bringing.joins(page, desk)
        stacking.joins(page)
        chooses(page, desk)
    return blocks


def sings(page: Page, button: Any, song: Callable[..., Iterator], inputs: list[Any]) -> Any:
    """A button begins a song."""
    told = [page.status, page.player, page.download, page.metadata]
    outputs = [*told, *page.plan.shows, *page.after.shows, page.last]
    event = begins(page, button, song, inputs, outputs)
    ends(page, event)
    return event


def singer(mode: type[SongRequest], names: list[str]) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """What a mode's button does with the values of its controls."""

    def on_press(*values: Any) -> Iterator[tuple[Any, ...]]:
        asked = dict(zip(names, values, strict=True))
        asked["retakes"] = (asked["retakes"] or {}).get("retakes", [])
        yield from sung(mode, asked)  # gradio looks for a generator function

    on_press.__name__ = f"on_{mode.mode}"
    return on_press


def retake(last: Shown | None, variance: float) -> Iterator[tuple[Any, ...]]:
    """The take on the screen once more, its noise turned towards a new seed; short of a new take it keeps its plan."""
    if last:
        values, planner = last.values, last.take.metadata["planner"]
        plan = (planner or {}).get("plan") if variance < 1 else None
        yield from sung(last.mode, {**values, "retakes": [*values["retakes"], [-1, variance]]}, plan)


def sung(mode: type[SongRequest], values: dict[str, Any], plan: Any = None) -> Iterator[tuple[Any, ...]]:
    """A song as the page is told of it: status, player, download, metadata, the panels under it, and the take itself.

    `plan` stands in for the one that was brought, in this song alone.
    """
    import gradio as gr

    import after_panel
    import lora_panel
    import plan_panel
    import ui
    from regions import picked

    def nothing(line: str) -> tuple[Any, ...]:
        no_file = gr.DownloadButton(value=None, interactive=False)
        return line, None, no_file, None, *plan_panel.shown(None), *after_panel.shown(None), gr.skip()

    begun = nothing(ui.status("Starting", "running"))
    yield begun
    try:
        wanted = {**values, "loras": api.uploaded_stack(lora_panel.picked(values["loras"]))}
        wanted |= {"regions": picked(values["regions"])} if "regions" in values else {}
        wanted |= {"plan": plan} if plan else {}
        for event in modes.run(modes.SONGS[mode], wanted):
            if isinstance(event, Take):
                made = dict(event.metadata)
                asked = {**values, "seed": made["seed"], "retakes": made["retakes"]}
                file = gr.DownloadButton(value=event.path, interactive=True)
                panels = [*bringing.panel(event), *after_panel.shown(made, event.recipe["title"])]
                yield ui.status(modes.summary(event)), event.path, file, made, *panels, Shown(mode, asked, event)
            else:
                yield ui.progress(event), *[gr.skip()] * (len(begun) - 1)
    except StudioError as error:
        yield nothing(ui.status(str(error), "error"))


def listens(page: Page, tab: Tab) -> None:
    """Whatever recording comes in is looked at, at once: what it is, or why it cannot be used."""
    regions = [tab.inputs["regions"]] if "regions" in tab.inputs else []
    for name, line in tab.heard.items():
        look = on_song_to_edit if regions else recorded(f"{tab.mode.mode}-{name}")
        tab.inputs[name].change(look, [tab.inputs[name], page.wanted], [line, *regions], **READ_QUEUE, **QUIET)


def recorded(control: str) -> Callable[[str | None, dict[str, Any]], str]:
    """What looks at the recordings of a control."""

    def on_recording(path: str | None, wanted: dict[str, Any]) -> str:
        return looked_at(path, wanted.get(control))[0]

    return on_recording


def on_song_to_edit(path: str | None, wanted: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What was read of a recording, and its waveform to mark regions on; those of a restored recipe are marked."""
    from regions import drawn

    line, clip = looked_at(path, wanted.get("edit-source_audio"))
    marked = wanted.get("edit-regions", [])
    return line, drawn(clip.seconds, audio_io.peaks(clip.samples, PEAKS), marked) if clip else drawn(0, [], [])


def looked_at(path: str | None, wanted: dict[str, Any] | None) -> tuple[str, AudioClip | None]:
    """A recording that may be missing or refused, and the line that says what it is or why not."""
    import ui

    if not path:
        return "", None
    try:
        clip = audio_io.admit(path)
    except StudioError as error:
        return ui.status(str(error), "error"), None
    return ui.heard(clip, wanted), clip


def chooses(page: Page, desk: Desk) -> None:
    """What tabs and choices bring up, in the browser alone."""
    import ui

    shown = ui.tabbed(page)
    knobs = [page.knobs[name] for name in ui.may_rest(desk)]
    thinking = page.knobs["thinking"]
    page.lyrics.tab.select(None, None, shown, js=ui.only(page, page.lyrics), **QUIET)
    for tab in page.tabs:
        tab.tab.select(None, None, shown, js=ui.only(page, tab), **QUIET)
        choice = tab.inputs.get("sub_mode")
        tab.tab.select(None, choice or thinking, knobs, js=ui.rests(desk, tab.mode), **QUIET)
        if tab.mode is Generate:  # where alone it can be changed
            thinking.input(None, thinking, knobs, js=ui.rests(desk, Generate), **QUIET)
        if choice:
            parts = [part for shown in tab.shown.values() for part in shown]
            choice.change(None, choice, parts, js=ui.brought_up(tab), **QUIET)
            choice.change(None, choice, knobs, js=ui.rests(desk, Edit), **QUIET)
            mode, strength = tab.inputs["repaint_mode"], tab.inputs["repaint_strength"]
            mode.change(None, mode, strength, js=ui.balanced(desk), **QUIET)


def serve(blocks: Any) -> None:
    """Serve the page until stopped."""
    import importlib.util

    from fastapi import Request
    from fastapi.responses import JSONResponse

    import theme

    def unknown_name(request: Request, error: Exception) -> JSONResponse:
        # gradio checks the names of an API call outside its own error handling
        if not str(error).startswith(("Parameter `", "No value provided")):
            raise error
        return JSONResponse({"error": str(error).split(" Please click")[0]}, status_code=422)

    settings = read()
    blocks.queue(max_size=settings.queue_size, api_open=False).launch(
        server_name=settings.host,
        server_port=settings.port,
        theme=theme.theme(),
        css_paths=theme.CSS,
        js=theme.JS,
        run_history=False,
        ssr_mode=False,
        footer_links=["api"],
        max_file_size=max(audio_io.AUDIO_MAX_BYTES, lora_stack.LORA_MAX_BYTES),
        mcp_server=importlib.util.find_spec("mcp") is not None,
        app_kwargs={"exception_handlers": {TypeError: unknown_name}},
    )


def main() -> None:
    """Build what must be built before the first visitor, then serve until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines would carry visitors' ZeroGPU tokens
    try:
        if read().zero_gpu:
            build_ahead()
        blocks = studio()
    except SettingError as error:
        raise SystemExit(str(error)) from None
    serve(blocks)


def build_ahead() -> None:
    """On ZeroGPU: a worker is forked from this process, so what is built here is there already.

    What is built later would be paid again by every fresh worker, out of the visitor's quota.
    """
    try:
        backend.get_backend()
        if backend.planner_row():
            backend.get_planner()
    except EngineError as error:
        log.error("%s", error)  # the page starts all the same and says so with the first song


if __name__ == "__main__":
    main()
