"""What the page does in the browser alone: what tabs and choices bring up, what rests, what the buttons of cards do.

Nothing here asks Python: every function gives JavaScript with its answers in it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fields import fields_of
from remakes import FLOW_OFF, SKETCH_OFF, STRENGTH_OFF, Edit
from settings import SKETCH
from song import KNOBS, Generate, SongRequest
from tooltips import idle
from turns import QUIET, update

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page
    from widgets import Desk

SUMMED = ("inference_steps", "infer_method", "seed")  # what the closed Advanced panel tells


def joins(page: Page, desk: Desk) -> None:
    """Attach what tabs and choices bring up, what closed panels say, and what the buttons of cards do."""
    import gradio as gr

    mends(page)
    summed = [page.knobs[name] for name in SUMMED]
    gr.on([knob.change for knob in summed], None, summed, page.advanced, js=summing(), **QUIET)
    shown = tabbed(page)
    knobs = [page.knobs[name] for name in may_rest(desk)]
    thinking = page.knobs["thinking"]
    page.lyrics.tab.select(None, None, shown, js=only(page, page.lyrics), **QUIET)
    for tab in page.tabs:
        tab.tab.select(None, None, shown, js=only(page, tab), **QUIET)
        choice = tab.inputs.get("sub_mode")
        tab.tab.select(None, choice or thinking, knobs, js=rests(desk, tab.mode), **QUIET)
        if tab.mode is Generate:  # where alone it can be changed
            thinking.input(None, thinking, knobs, js=rests(desk, Generate), **QUIET)
        if choice:
            parts = [part for shown in tab.shown.values() for part in shown]
            choice.change(None, choice, parts, js=brought_up(tab), **QUIET)
            choice.change(None, choice, knobs, js=rests(desk, Edit), **QUIET)
            mode, strength = tab.inputs["repaint_mode"], tab.inputs["repaint_strength"]
            mode.change(None, mode, strength, js=balanced(desk), **QUIET)


def mends(page: Page) -> None:
    """The buttons of an error's card do what they say, in the browser alone: `assets/remedies.js`."""
    import gradio as gr

    parts = {name: page.knobs[name] for name in ("inference_steps", "seed")} | {"loras": page.loras.stack}
    for tab in page.tabs:
        prefix = "" if tab.mode is Generate else f"{tab.mode.mode}-"
        mended = ("duration_s", "extra_duration_s", *tab.heard)
        parts |= {f"{prefix}{name}": tab.inputs[name] for name in mended if name in tab.inputs}
    parts["status"] = page.status
    js = f"(...values) => window.studio.mend({json.dumps(list(parts))}, values)"
    places = (page.status, page.loras.line, *(line for tab in page.tabs for line in tab.heard.values()))
    gr.on([place.click for place in places], None, list(parts.values()), list(parts.values()), js=js, **QUIET)


def only(page: Page, chosen: Any) -> str:
    """Of `tabbed` what belongs to a tab is shown: its button, and what song tabs share or the sheet of lyrics."""
    writes = chosen is page.lyrics
    buttons = [*page.tabs, page.lyrics]
    shown = [*(one is chosen for one in buttons), *[not writes] * len(page.songs), writes]
    return f"() => {json.dumps([update(visible=visible) for visible in shown])}"


def tabbed(page: Page) -> list[Any]:
    """What comes and goes with tabs."""
    return [*(tab.button for tab in page.tabs), page.lyrics.button, *page.songs, page.lyrics.column]


def brought_up(tab: Tab) -> str:
    """What a choice of the tab brings up, in the order of `tab.shown`."""
    shown = {
        choice: [update(visible=name == choice) for name, parts in tab.shown.items() for _ in parts]
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
        return update(interactive=name not in off, info=idle(off[name], words) if name in off else words)

    choices = fields_of(Edit)["sub_mode"].choices if mode is Edit else (True, False)
    known = {said: [drawn(name, resting(mode, said)) for name in may_rest(desk)] for said in choices}
    return f"said => ({json.dumps(known)})[said]"


def balanced(desk: Desk) -> str:
    """Repaint strength, disabled with the reason unless the repaint mode is balanced."""
    k = fields_of(Edit)["repaint_strength"]
    on, off = (
        update(interactive=act, info=desk.words(k) if act else idle(STRENGTH_OFF, desk.words(k)))
        for act in (True, False)
    )
    return f"mode => mode === 'balanced' ? {json.dumps(on)} : {json.dumps(off)}"


def summing() -> str:
    """What the closed Advanced panel says, as `ui.summed` does, in the browser."""
    seed = "seed < 0 ? 'random seed' : `seed ${seed}`"
    label = f"`Advanced · ${{steps}} steps, ${{method.toUpperCase()}}, ${{{seed}}}`"
    return f"(steps, method, seed) => ({{__type__: 'update', label: {label}}})"
