"""Joins the planner's drafts to the page: Write it for me, Tidy, Describe this audio, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import cards
import modes
from drafts import DRAFTS, Describe, Write
from errors import StudioError
from plans import METAS, Draft
from settings import DRAWS_NOT
from song import Asked, controls
from turns import QUIET, begins, ends

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page

FILLED = ("prompt", "lyrics", "source_caption", "source_lyrics", "instrumental", "duration_s", *METAS, "plan")
DEEPEST = 20  # drafts that can be taken back


def unavailable() -> dict[type[Asked], str]:
    """The drafts that cannot be had here, each with the reason."""
    off = modes.unavailable().get("thinking")
    if off == modes.NO_PLANNER:
        return dict.fromkeys(DRAFTS, modes.NO_PLANNER)
    return {Describe: "this model has no audio tokenizer to hear a song with"} if off == DRAWS_NOT else {}


def joins(page: Page, tab: Tab) -> list[Any]:
    """Attach a tab's drafts; returns what Stop has to end."""
    import gradio as gr

    known = tab.asides | page.inputs(tab)
    fields = {name: known[name] for name in FILLED if name in known}
    draft, mine = gr.State(), gr.State([])
    seen = fields | ({"sub_mode": known["sub_mode"]} if "sub_mode" in known else {})
    begun = []

    def on_back(earlier: list[dict[str, Any]]) -> dict[Any, Any]:
        if not earlier:
            return {mine: []}
        *rest, last = earlier
        return {fields[name]: last[name] for name in fields} | {mine: rest, tab.back: gr.Button(visible=bool(rest))}

    for mode, button in tab.drafts.items():
        sent = {name: known[name] for name in controls(mode) if name != "seed"} | {"plan": fields["plan"], "mine": mine}
        outputs = [*fields.values(), draft, mine, tab.back]
        event = begins([button], asker(mode, list(sent)), list(sent.values()), [page.status, draft])
        fill = filler(mode, list(seen), outputs)
        filled = event.then(fill, [draft, mine, *seen.values()], outputs, queue=False, **QUIET)
        ends(page, event, filled=filled)
        begun.append(event)
    tab.back.click(on_back, mine, [*fields.values(), mine, tab.back], queue=False, **QUIET)
    return begun


def asker(mode: type[Asked], names: list[str]) -> Callable[..., Iterator[tuple[str, Any]]]:
    """What a draft's button does with the values it is given: status line and draft."""
    import gradio as gr

    import plan_panel

    def on_press(*values: Any) -> Iterator[tuple[str, Any]]:
        yield cards.status("Starting", "running"), None
        try:
            for event in modes.run(modes.HANDLERS[mode], asked(mode, dict(zip(names, values, strict=True)))):
                if isinstance(event, Draft):
                    yield cards.status(plan_panel.told(mode.mode, event)), event
                else:
                    yield cards.progress(event), gr.skip()
        except StudioError as error:
            yield cards.refusal(error), None

    on_press.__name__ = f"on_{mode.mode}"
    return on_press


def asked(mode: type[Asked], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a draft's request, always with a seed of its own.

    A language that a plan brought is not the musician's wish for the next draft.
    """
    plan, mine = values["plan"], values["mine"]
    own = {name: values[name] for name in controls(mode) if name in values} | {"seed": -1}
    if mode is Write and plan and plan["plan"]["vocal_language"] == own["vocal_language"]:
        own["vocal_language"] = mine[-1]["vocal_language"] if mine else "unknown"
    return own


def filler(mode: type[Asked], names: list[str], outputs: list[Any]) -> Callable[..., list[Any]]:
    """Puts a finished draft into a tab's fields and keeps what stood there; without a draft nothing changes.

    `outputs` are the fields by FILLED's order, then draft, mine and the way back.
    """
    import gradio as gr

    def on_draft(draft: Draft | None, mine: list[dict[str, Any]], *values: Any) -> list[Any]:
        if draft is None:
            return [gr.skip()] * len(outputs)
        stood = dict(zip(names, values, strict=True))
        new = written(mode, draft, stood)
        fields = [new.get(name, gr.skip()) for name in names if name in FILLED]
        return [*fields, None, [*mine, stood][-DEEPEST:], gr.Button(visible=True)]

    on_draft.__name__ = f"after_{mode.mode}"
    return on_draft


def written(mode: type[Asked], draft: Draft, stood: Mapping[str, Any]) -> dict[str, Any]:
    """What a draft writes into a tab's fields, of which it knows what stood there."""
    import plan_panel

    new = {name: getattr(draft, name) for name in METAS} | {"bpm": draft.bpm or ""}
    if mode is not Describe:
        words = {"prompt": draft.prompt, "lyrics": draft.lyrics, "instrumental": draft.instrumental}
        length = {"duration_s": draft.duration_s} if draft.duration_s else {}
        return new | words | length | {"plan": plan_panel.bringing(draft.plan)}
    caption = "source_caption" if stood.get("sub_mode") == "flow_edit" else "prompt"
    place = next((name for name in ("source_lyrics", "lyrics") if name in stood), None)
    heard = {place: draft.lyrics} if place and not stood[place].strip() else {}
    return new | heard | {caption: draft.prompt, "plan": None}
