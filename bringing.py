"""Joins plans to the page: used again, saved, loaded, and dropped when the words they were made for change."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audio_io
import cards
import saved
from errors import StudioError
from plans import METAS
from saved import Saved
from sound import Take
from turns import QUIET
from visits import Shown

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page
    from widgets import Desk

# What a plan is made for: once it is changed by hand, the plan is another song's.
MADE_FOR = ("prompt", "lyrics", "source_lyrics", "target_lyrics", "duration_s", "instrumental")


def joins(page: Page, desk: Desk) -> None:
    """Attach what the panel's buttons do, and what drops a plan."""
    outputs = {"status": page.status, "tabs": page.switch}
    outputs |= {name: page.knobs[name] for name in METAS}
    if "thinking" not in desk.off:
        outputs["thinking"] = page.knobs["thinking"]
    for tab in page.tabs:
        named = ("prompt", "plan", "duration_s")
        outputs |= {f"{tab.mode.mode}-{name}": tab.inputs[name] for name in named if name in tab.inputs}
        drops(tab, page.knobs["seed"])

    def on_use(last: Shown | None) -> dict[Any, Any]:
        found = saved.of(last.take.metadata) if last else None
        return {outputs[name]: value for name, value in (used(found) if found else {}).items() if name in outputs}

    def on_load(path: str) -> dict[Any, Any]:
        return {outputs[name]: value for name, value in loaded(path).items() if name in outputs}

    page.plan.use.click(on_use, page.last, list(outputs.values()), queue=False, **QUIET)
    page.plan.load.upload(on_load, page.plan.load, list(outputs.values()), queue=False, **QUIET)


def drops(tab: Tab, seed: Any) -> None:
    """What a tab brings along goes when what it was made for is changed by hand: its plan with the words, its retakes with
    the seed. In the browser alone: no press can overtake it.
    """
    import gradio as gr

    made_for = [tab.inputs[name].input for name in MADE_FOR if name in tab.inputs]
    gr.on(made_for, None, None, tab.inputs["plan"], js="() => [null]", **QUIET)
    seed.input(None, None, tab.inputs["retakes"], js="() => [null]", **QUIET)


def used(found: Saved) -> dict[str, Any]:
    """What a plan puts where on the page: by knob, by `mode-control`, and `status`."""
    import gradio as gr

    import plan_panel

    plan, mode = found.plan, found.mode
    values = {name: getattr(plan, name) for name in METAS} | {"bpm": plan.bpm or ""}
    values[f"{mode}-plan"] = brought = plan_panel.bringing(plan)
    if plan.caption:
        values[f"{mode}-prompt"] = plan.caption
    if found.duration_s:
        values[f"{mode}-duration_s"] = found.duration_s
    if plan.codes:
        values["thinking"] = True  # without it they would lie idle
    line = f"Plan in use on {mode.capitalize()}: {brought['line']}."
    return values | {"tabs": gr.Tabs(selected=f"{mode}-tab"), "status": cards.status(line)}


def loaded(path: str) -> dict[str, Any]:
    """What a visitor's file puts on the page: a plan, or why it holds none."""

    try:
        return used(saved.read(path))
    except StudioError as error:
        return {"status": cards.refusal(error)}


def panel(take: Take) -> list[Any]:
    """The plan's panel for a take, with a file of its plan, written beside the song."""
    import plan_panel

    found = saved.of(take.metadata)
    return plan_panel.shown(take.metadata, found and found.plan, found and _file(take, found))


def _file(take: Take, found: Saved) -> str | None:
    """The file, or None when there is no room for it."""
    path = Path(take.path).with_name(f"ace-plan-{take.metadata['seed']}.json")
    with suppress(StudioError):  # the song is what matters
        audio_io.whole(path, memoryview(found.file()))
        return str(path)
    return None
