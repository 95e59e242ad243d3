"""Joins what a song will take to the button that begins it: "Generate · about 30 s"."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import backend
import checkpoints
import costs
from remakes import REPAINT_AROUND_S, REPAINT_CONTEXT_S, Edit, Extend
from song import Generate, SongRequest, codes_for
from turns import QUIET

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page

# What a song's time depends on, besides the length of its source.
COUNTS = ("inference_steps", "guidance_scale", "thinking", "loras", "plan", "duration_s", "extra_duration_s")
COUNTS += ("context_s", "sub_mode", "regions", "n_min", "n_max", "n_avg", "reference_audio", "takes")


def joins(page: Page, blocks: Any) -> None:
    """Attach the times to the buttons, and keep them true when a control changes: in the browser, so that typing asks nothing."""
    import gradio as gr

    page.pace.value = pace()
    parts: list[Any] = []  # those that tabs share once
    told = []
    for tab in page.tabs:
        known = page.inputs(tab)
        own = {name: known[name] for name in COUNTS if name in known}
        parts += [part for part in own.values() if part not in parts]
        told.append([tab.mode.mode, tab.action, {name: parts.index(part) for name, part in own.items()}])
        tab.button.value = words(tab, {name: part.value for name, part in own.items()})
    sources, buttons = [*parts, page.lengths, page.pace], [tab.button for tab in page.tabs]
    js = f"(...values) => window.studio.time({json.dumps(told)}, values)"
    gr.on([part.change for part in sources], None, sources, buttons, js=js, **QUIET)
    # A page that comes up late must know what was loaded and learned since the studio was started.
    gr.on([blocks.load, page.last.change], pace, None, page.pace, queue=False, **QUIET)


def words(tab: Tab, values: dict[str, Any], length: float | None = None) -> str:
    """What a tab's button says; `assets/estimates.js` says the same."""
    seconds = expected(tab.mode, values, length)
    return tab.action if seconds is None else f"{tab.action} · {costs.about(seconds)}"


def pace() -> dict[str, float]:
    """What the browser has to know to tell the same times: the costs of this machine, and whether the next song pays for
    a planner and for loading.
    """
    device, model = checkpoints.device(), backend.checkpoint().key
    now = {"thinks": float(backend.planner_row() is not None), "cold": float(not backend.loaded())}
    return costs.told(device, model) | now


def expected(mode: type[SongRequest], values: dict[str, Any], length: float | None) -> float | None:
    """Seconds of a song from what stands on the page; None where it cannot be told."""
    import lora_panel

    try:
        seconds = made(mode, values, length)
        thinks = backend.planner_row() is not None
        brought = ((values["plan"] or {}).get("plan") or {}).get("codes")
        coded = mode is Generate and thinks and values["thinking"] and not brought
        work = costs.Work(
            forwards=values["inference_steps"] * _passes(mode, values),
            seconds=seconds,
            heard=heard(mode, values, seconds),
            guided=values["guidance_scale"] > 1,
            codes=codes_for(seconds) if coded else 0,
            thinks=thinks,
            loras=len(lora_panel.rows(values["loras"])),
            takes=values["takes"],
            cold=not backend.loaded(),
        )
    except TypeError:  # an empty box, a source that is missing
        return None
    return costs.expected(work, checkpoints.device(), backend.checkpoint().key)


def made(mode: type[SongRequest], values: dict[str, Any], length: float | None) -> float:
    """Seconds of what the engine makes. Raises TypeError without what it depends on."""
    if mode is Generate:
        return float(values["duration_s"])
    if mode is Extend:
        return min(float(values["context_s"]), length) + values["extra_duration_s"]
    if mode is Edit and values["sub_mode"] == "repaint":
        marked = values["regions"]["regions"] if isinstance(values["regions"], dict) else ()
        edges = [edge for region in marked for edge in region if edge is not None] or [0.0]
        return min(length, max(REPAINT_CONTEXT_S, max(edges) - min(edges) + REPAINT_AROUND_S))
    return float(length)


def heard(mode: type[SongRequest], values: dict[str, Any], seconds: float) -> float:
    """Seconds of recordings that the engine listens to before it makes its `seconds`."""
    if mode is Generate:
        return 0.0
    if mode is Extend:
        return seconds - values["extra_duration_s"]
    return seconds + (costs.REFERENCE_S if values.get("reference_audio") else 0)


def _passes(mode: type[SongRequest], values: dict[str, Any]) -> float:
    """As `Edit.passes` says it."""
    if mode is not Edit or values["sub_mode"] == "repaint":
        return 1.0
    first, last = values["n_min"], max(values["n_min"], values["n_max"])
    return 2 * values["n_avg"] * (last - first) + 1 - last
