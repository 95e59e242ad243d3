"""Joins a finished take to the page: its loudness, stems and files; and a song that is dropped on the page, restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import cards
import modes
import restoring
from afters import After, Export, Normalise, Separate
from errors import StudioError
from listening import preview
from restoring import Restored
from song import KNOBS
from sound import Files
from turns import GPU_QUEUE, QUIET, READ_QUEUE, begins, ends
from visits import Shown

if TYPE_CHECKING:
    from ui import Page
    from widgets import Desk


def joins(page: Page, desk: Desk) -> list[Any]:
    """Attach what is made of a take, and the way back from a file; returns what Stop has to end."""
    begun = []
    for mode, button in page.after.buttons.items():
        inputs = page.after.inputs[mode]
        queue = GPU_QUEUE if mode is Separate else READ_QUEUE
        sources, outputs = [page.last, *inputs.values()], [page.status, *page.after.results(mode)]
        begun.append(begins([button], finisher(mode, list(inputs)), sources, outputs, **queue))
        ends(page, begun[-1], "Stopped. The song is as it was.")
    restores(page, desk)
    return begun


def finisher(mode: type[After], names: list[str]) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """What the button of a request does with the take on the screen: status line and results."""
    import gradio as gr

    import after_panel

    def results(made: Files | None) -> list[Any]:
        paths, told = (made.paths, made.metadata) if made else ({}, None)
        if mode is Export:
            return after_panel.exported(next(iter(paths.values()), None), told)
        bundle = paths.get("zip", "")
        parts = {name: (_track(path, name), path) for name, path in paths.items() if path != bundle}
        return (
            after_panel.parted(parts, bundle, told)
            if mode is Separate
            else after_panel.levelled(next(iter(parts.values()), None), told)
        )

    def on_press(last: Shown | None, *values: Any) -> Iterator[tuple[Any, ...]]:
        nothing = results(None)
        yield cards.status("Starting", "running"), *nothing
        try:
            handler = modes.after(mode, last and last.take)
            for event in modes.run(handler, dict(zip(names, values, strict=True))):
                if isinstance(event, Files):
                    yield cards.status(" ".join([DONE[mode], *event.metadata["warnings"]])), *results(event)
                else:
                    yield cards.progress(event), *[gr.skip()] * len(nothing)
        except StudioError as error:
            yield cards.refusal(error), *nothing

    on_press.__name__ = f"on_{mode.mode}"
    return on_press


def _track(path: str, name: str) -> Any:
    """A finished file as a player takes it."""
    from player import Track

    heard = preview(path)
    return Track(heard.path, heard.seconds, heard.peaks, name)


DONE = {
    Separate: "Stems are ready.",
    Normalise: "The song at its new loudness is ready; the take itself is as it was.",
    Export: "The file is ready.",
}


def restores(page: Page, desk: Desk) -> None:
    """Attach the way back: a song that is opened, or dropped anywhere on the page, sets every control."""
    from regions import marked

    outputs = {"status": page.status, "tabs": page.switch, "loras": page.loras.stack, "wanted": page.wanted}
    outputs["takes"] = page.count
    outputs |= {name: page.knobs[name] for name in KNOBS}
    outputs |= {f"{tab.mode.mode}-{name}": part for tab in page.tabs for name, part in tab.inputs.items()}
    outputs |= {f"after-{name}": part for name, part in page.after.inputs[Export].items()}
    editor = next(tab.inputs["regions"] for tab in page.tabs if "regions" in tab.inputs)

    def on_open(path: str, stack: Any, edited: Any) -> dict[Any, Any]:
        values = opened(path, stack, desk)
        if "edit-regions" in values:
            values["edit-regions"] = marked(edited, values["edit-regions"])
        return {outputs[name]: value for name, value in values.items() if name in outputs}

    page.open.upload(on_open, [page.open, page.loras.stack, editor], list(outputs.values()), **READ_QUEUE, **QUIET)


def opened(path: str, stack: Any, desk: Desk) -> dict[str, Any]:
    """What a visitor's file puts on the page, by knob, `mode-control`, `after-control`; or why it restores nothing."""
    import gradio as gr

    import lora_panel

    rows = {row["sha256"]: row for row in lora_panel.rows(stack)}
    try:
        found = restoring.restore(path, desk.given, frozenset(rows))
    except StudioError as error:
        return {"status": cards.refusal(error)}
    mode, own = found.recipe.mode.mode, found.recipe
    values = {name if name in KNOBS else f"{mode}-{name}": _placed(name, value) for name, value in own.values.items()}
    values |= {f"{mode}-{name}": brought for name, brought in _brought(found).items()}
    values |= {f"after-{name}": value for name, value in own.after.items()}
    values["loras"], values["takes"] = lora_panel.stacked(_rows(found, rows)), own.values["takes"]
    values["wanted"] = {f"{mode}-{name}": facts for name, facts in own.needs.items()}
    if "regions" in own.values:
        values["wanted"]["edit-regions"] = own.values["regions"]
    title = own.mode.__name__
    words = " ".join([f"Restored on {title}: seed {own.values['seed']}.", *found.told])
    return values | {"tabs": gr.Tabs(selected=f"{mode}-tab"), "status": cards.status(words)}


def _placed(name: str, value: Any) -> Any:
    """A control's value as its widget takes it."""
    if name in KNOBS and KNOBS[name].optional:
        return "" if value is None else value  # an empty box
    return value


def _brought(found: Restored) -> dict[str, Any]:
    """The plan and the retakes of a recipe, as the lines that stand for them."""
    import plan_panel
    from plans import Plan

    values = found.recipe.values
    plan, turns = values["plan"], values["retakes"]
    return {
        "plan": plan and plan_panel.bringing(Plan.model_validate(plan)),
        "retakes": plan_panel.retaking(values["seed"], turns) if turns else None,
    }


def _rows(found: Restored, mine: dict[str, Any]) -> list[dict[str, Any]]:
    """The stack of a recipe: what was on the page already, and presets."""
    import lora_panel

    return [
        lora_panel.row_of(lora, {"preset": entry["preset"]}, entry["strength"])
        if lora
        else {**mine[entry["sha256"]], "strength": entry["strength"]}
        for entry, lora in found.loras
    ]
