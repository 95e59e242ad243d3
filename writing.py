"""Joins the Lyrics tab to the page: drafts, refinements and continuations as they are written, variants, the way into a song."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cards
import modes
from errors import StudioError
from lyrics import Continue, Lyrics, Refine
from sections import TAG
from singing import sung, verdict
from song import Generate, SongRequest, controls
from sound import Written
from turns import QUIET, begins, ends

if TYPE_CHECKING:
    from lyrics_panel import LyricsPanel
    from ui import Page

Variant = dict[str, Any]  # `text`, and `made`, the recipe, where there is one
Presses = dict[Any, tuple[type[Lyrics], dict[str, Any]]]  # by button: what is asked, and what the button itself sets
CARET = "(...values) => [...values.slice(0, -1), document.querySelector('#draft textarea')?.selectionStart ?? 0]"
STOPPED = "Stopped. The words so far are kept."


def joins(page: Page) -> list[Any]:
    """Attach the tab; returns what Stop has to end."""
    import gradio as gr

    panel = page.lyrics
    sheets, at, caret = gr.State([]), gr.State(0), gr.Number(0, visible=False)
    shown = [panel.which, panel.draft, panel.compare, panel.metadata, sheets, at]
    stands = {**panel.inputs, "sheets": sheets, "at": at, "draft": panel.draft, "caret": caret}
    language = panel.inputs["language"]

    asks = presses(panel)
    work = writer(asks, list(stands), page.titled)
    event = begins(list(asks), work, list(stands.values()), [page.status, page.header, *shown], js=CARET)
    event.then(settled, [sheets, at, panel.draft], shown, queue=False, **QUIET)
    ends(page, event, STOPPED)
    for brief, button in panel.examples.items():
        button.click(lambda brief=brief: brief, None, panel.inputs["brief"], queue=False, **QUIET)
    panel.metadata.change(last_time, panel.metadata, panel.button, queue=False, **QUIET)
    panel.which.input(switched, [panel.which, sheets, at, panel.draft], shown, queue=False, **QUIET)
    edits = {"queue": False, "trigger_mode": "always_last", **QUIET}
    panel.draft.change(counts, [panel.draft, language], panel.counts, **edits)
    language.change(counts, [panel.draft, language], panel.counts, **edits)
    hands_on(page)
    return [event]


def presses(panel: LyricsPanel) -> Presses:
    """What each button of the tab asks."""
    asks: Presses = {panel.button: (Lyrics, {}), panel.more: (Lyrics, {"seed": -1}), panel.resume: (Continue, {})}
    return asks | {button: (Refine, {"change": change}) for change, button in panel.refine.items()}


def writer(asks: Presses, names: list[str], titled: Callable[[str], str]) -> Callable[..., Iterator[list[Any]]]:
    """What the buttons do with the values they are given: a new variant, word by word. `titled` heads the page with its writer."""
    import gradio as gr

    # By name: once a button was changed gradio hands in another object.
    named = {button.elem_id: ask for button, ask in asks.items()}

    def on_writing(pressed: gr.EventData, *values: Any) -> Iterator[list[Any]]:
        mode, fixed = named[pressed.target.elem_id]
        yield from written(mode, {**dict(zip(names, values, strict=True)), **fixed}, titled)

    on_writing.__annotations__["pressed"] = gr.EventData  # by which gradio knows what to hand in
    return on_writing


def written(mode: type[Lyrics], given: dict[str, Any], titled: Callable[[str], str]) -> Iterator[list[Any]]:
    """The status line, the header and the sheet while a variant is written. What stood in the editor stays in its own variant."""
    import gradio as gr

    import lyrics_panel

    before = kept(given["sheets"], given["at"], given["draft"])
    asked = {name: given[name] for name in controls(mode) if name in given}
    if mode is Continue:
        asked["draft"] = upto(given["draft"], int(given["caret"]))
    text, at = "", len(before)
    # The new one is a choice when it has words: gradio's Radio stumbles over choices that go.
    wait, new = gr.Radio(interactive=False), [*before, {"text": "", "made": None}]
    yield [cards.status("Starting", "running"), gr.skip(), wait, "", gr.skip(), None, new, at]
    try:
        for event in modes.run(modes.HANDLERS[mode], asked):
            if isinstance(event, Written):
                new, line = [*before, {"text": event.text, "made": dict(event.metadata)}], told(event)
                if (same := _place(before, event.text)) is not None:
                    new, at = before, same
                    line = f"These are the words of {lyrics_panel.label(same)} again: same seed, same draft. Press + for others."
                yield [cards.status(line), titled(event.metadata["model"]["name"]), *shows(new, at)]
            else:
                text = event.text or text
                yield [cards.progress(event), gr.skip(), gr.skip(), event.text or gr.skip(), *[gr.skip()] * 4]
    except StudioError as error:
        new = [*before, {"text": text, "made": None}] if text else before
        yield [cards.refusal(error, "lyrics"), gr.skip(), *shows(new, at if text else given["at"])]


def last_time(made: Mapping[str, Any] | None) -> Any:
    """What the draft's button says after a draft: how long that took."""
    import gradio as gr

    import lyrics_panel

    return gr.update(value=lyrics_panel.action(made["timings"]["total_s"])) if made else gr.skip()


def told(event: Written) -> str:
    """Finished lyrics in one line, with what their reader should know."""
    made = event.metadata
    seconds = made["timings"]["total_s"]
    words = f"{made['model']['name']} wrote this in {seconds:.1f} s · seed {made['seed']}"
    return " · ".join([words, *made["warnings"]])


def _place(sheets: Sequence[Variant], text: str) -> int | None:
    return next((n for n, sheet in enumerate(sheets) if sheet["text"].strip() == text.strip()), None)


def kept(sheets: Sequence[Variant], at: int, draft: str) -> list[Variant]:
    """The variants, with what now stands in the editor; a recipe that is no longer the text's own is dropped.

    Words without a variant, typed or pasted, become the first one; an empty variant at the end goes.
    """
    now = list(sheets)
    if at < len(now) and now[at]["text"] != draft:
        now[at] = {"text": draft, "made": None}
    if not now and draft.strip():
        now = [{"text": draft, "made": None}]
    while now and not now[-1]["text"].strip():
        now.pop()
    return now


def shows(sheets: Sequence[Variant], at: int) -> list[Any]:
    """The sheet with one of its variants."""
    import lyrics_panel

    at = max(min(at, len(sheets) - 1), 0)
    one = sheets[at] if sheets else {"text": "", "made": None}
    choice, columns = lyrics_panel.chosen(sheets, at), lyrics_panel.compared(sheets)
    return [choice, one["text"], columns, one["made"], list(sheets), at]


def settled(sheets: list[Variant], at: int, draft: str) -> list[Any]:
    """After an end of any kind: what was written before Stop is a variant, and an empty one is gone."""
    return shows(kept(sheets, at, draft), at)


def switched(name: str, sheets: list[Variant], at: int, draft: str) -> list[Any]:
    """Another variant in the editor; edits of the one that stood there stay with it."""
    import lyrics_panel

    place = next(n for n in range(len(sheets)) if lyrics_panel.label(n) == name)
    return shows(kept(sheets, at, draft), place)


def counts(draft: str, language: str) -> str:
    """What stands beside the words."""
    import lyrics_panel

    return lyrics_panel.counted(draft, language)


def upto(draft: str, caret: int) -> str:
    """The words before the caret, which a browser counts in units of UTF-16; a tag it stands in is taken whole."""
    before = draft.encode("utf-16-le")[: 2 * caret].decode("utf-16-le", "ignore")
    begin = before.rfind("\n") + 1
    line = draft[begin:].split("\n", 1)[0]
    return draft[:begin] + line if TAG.fullmatch(line) and len(before) > begin else before


def hands_on(page: Page) -> None:
    """The lyrics into the song tabs, asking before words are replaced; and whether they fit."""
    import gradio as gr

    import lyrics_panel

    panel = page.lyrics

    def on_fit(draft: str, language: str, duration_s: float) -> str:
        fits, words = verdict(sung(draft, language), duration_s)
        hint = "" if fits else " Shorten them, or set a longer Duration on Generate."
        return cards.status(words + hint, "done" if fits else "error")

    for tab in page.tabs:
        field = tab.inputs[lyrics_panel.USES[tab.mode]]
        row, yes, no = panel.asks[tab.mode]
        voice = [tab.inputs["instrumental"]] if tab.mode is Generate else []
        outputs = [page.status, row, page.switch, field, *voice]
        ask, fill = user(tab.mode, bool(voice))
        panel.uses[tab.mode].click(ask, [panel.draft, field], outputs, queue=False, **QUIET)
        yes.click(fill, panel.draft, outputs, queue=False, **QUIET)
        no.click(lambda: gr.Row(visible=False), None, row, queue=False, **QUIET)
        if tab.mode is Generate:
            seen = [panel.draft, panel.inputs["language"], tab.inputs["duration_s"]]
            panel.fit.click(on_fit, seen, page.status, queue=False, **QUIET)


def user(mode: type[SongRequest], voice: bool) -> tuple[Callable[..., list[Any]], Callable[..., list[Any]]]:
    """What "Use in" a mode does, and what "Replace them" does: status, question, tabs, the tab's lyrics, its vocal mode."""
    import gradio as gr

    rest = [gr.skip()] * (2 + voice)

    def fill(draft: str) -> list[Any]:
        line = cards.status(f"These lyrics stand in {mode.mode.capitalize()} now.")
        sings = [False] if voice else []  # an instrumental would leave them out
        return [line, gr.Row(visible=False), gr.Tabs(selected=f"{mode.mode}-tab"), draft, *sings]

    def ask(draft: str, there: str) -> list[Any]:
        if not draft.strip():
            return [cards.status("There are no lyrics yet: draft some, or write your own.", "error"), gr.skip(), *rest]
        if there.strip() and there.strip() != draft.strip():
            return [gr.skip(), gr.Row(visible=True), *rest]
        return fill(draft)

    ask.__name__, fill.__name__ = f"use_in_{mode.mode}", f"replace_in_{mode.mode}"
    return ask, fill
