"""Joins a visit's takes to the page: which of them stands on the screen, its list, comparing two, sending one on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bringing
import cards
import modes
from remakes import Cover, Edit, Extend
from song import SongRequest
from sound import SAMPLE_RATE
from turns import QUIET
from visits import VISITS, Shown, Visit

if TYPE_CHECKING:
    from ui import Page

NAME_LIMIT = 60  # characters of a take's name
# Where a take goes, and which of its words go with it into boxes that are empty: by control, from the take's own.
SENDS: dict[type[SongRequest], dict[str, str]] = {
    Cover: {},
    Extend: {"prompt": "prompt"},
    Edit: {"prompt": "prompt", "source_caption": "prompt", "source_lyrics": "lyrics", "target_lyrics": "lyrics"},
}


def joins(page: Page) -> None:
    """Attach what the list of takes asks for, and the end of a comparison."""
    tabs = [tab for tab in page.tabs if tab.mode in SENDS]
    boxes = {f"{tab.mode.mode}-{name}": tab.inputs[name] for tab in tabs for name in SENDS[tab.mode]}
    sources = {f"{tab.mode.mode}-source_audio": tab.inputs["source_audio"] for tab in tabs}
    outputs = {"status": page.status, "tabs": page.switch} | boxes | sources
    targets = [*outputs.values(), *page.taking, *page.screen]

    def on_wish(key: str | None, value: Any, *words: str) -> list[Any]:
        import gradio as gr

        visit = VISITS.at(key)
        new = granted(visit, value, dict(zip(boxes, words, strict=True)))
        able = [gr.skip() if visit.shown else gr.update(interactive=False)] * len(page.taking)
        return [*(new.get(name, gr.skip()) for name in outputs), *able, *screen(visit)]

    def on_done(key: str | None) -> list[Any]:
        visit = VISITS.at(key)
        visit.pair = ()
        return screen(visit)

    page.takes.input(on_wish, [page.key, page.takes, *boxes.values()], targets, queue=False, **QUIET)
    page.compare.done.click(on_done, page.key, page.screen, queue=False, **QUIET)


def granted(visit: Visit, value: Any, words: dict[str, str]) -> dict[str, Any]:
    """What a wish from the list of takes changes: of the visit, and of the page by `status`, `tabs`, `mode-control`.

    `words` are what stands in the boxes that a take's own words may fill.
    """
    import takes_panel

    wish = takes_panel.wished(value)
    shown = visit.find(wish.id) if wish else None
    if not shown:
        return {}
    if wish.verb == "show":
        visit.on = shown.id
    elif wish.verb == "rename":
        visit.change(shown.id, name=wish.text.strip()[:NAME_LIMIT] or shown.name)
    elif wish.verb == "star":
        visit.change(shown.id, starred=not shown.starred)
    elif wish.verb == "compare":
        visit.compare(shown.id)
    elif wish.verb == "delete":
        visit.drop(shown.id)
        return {"status": cards.status(f"{shown.name} is deleted.")}
    else:
        return sent(shown, next(mode for mode in SENDS if mode.mode == wish.verb), words)
    return {}


def sent(shown: Shown, mode: type[SongRequest], words: dict[str, str]) -> dict[str, Any]:
    """What a take puts on another tab: its song, and its words where there are none."""
    import gradio as gr

    at, made = mode.mode, shown.take.metadata
    own = {"prompt": made.get("prompt", ""), "lyrics": made.get("lyrics") or made.get("target_lyrics", "")}
    filled = {f"{at}-{box}": own[name] for box, name in SENDS[mode].items() if not words[f"{at}-{box}"].strip()}
    line = f"{shown.name} stands in {mode.__name__} now."
    return filled | {
        f"{at}-source_audio": shown.take.path,
        "tabs": gr.Tabs(selected=f"{at}-tab"),
        "status": cards.status(line),
    }


def screen(visit: Visit) -> list[Any]:
    """All that shows a visit's take and its list of takes, in the order of `Page.screen`."""
    import gradio as gr

    import after_panel
    import plan_panel
    import player

    shown = visit.shown
    if not shown:
        own = [None, gr.DownloadButton(value=None, interactive=False), None, *plan_panel.shown(None)]
        return [*own, *after_panel.shown(None), *_listed(visit), None]
    take = shown.take
    file = gr.DownloadButton(value=take.path, interactive=True)
    own = [player.playing(track(shown)), file, dict(take.metadata), *bringing.panel(take)]
    return [*own, *after_panel.shown(take.metadata, take.recipe["title"]), *_listed(visit), shown]


def added(visit: Visit) -> list[Any]:
    """What `screen` gives where a take came into the list alone: nobody who listens or compares is disturbed."""
    import gradio as gr

    listed, *pair = _listed(visit)
    quiet = [gr.skip()] * len(pair) if len(visit.pair) == 2 else pair
    own = len(screen(Visit())) - len([listed, *pair]) - 1
    return [*[gr.skip()] * own, listed, *quiet, gr.skip()]


def _listed(visit: Visit) -> list[Any]:
    """The list of takes, and the two that are compared."""
    import comparing
    import takes_panel

    rows = [takes_panel.Row(s.id, s.name, _what(s), f"seed {s.take.metadata['seed']}", s.starred) for s in visit.takes]
    pair = [shown for shown in map(visit.find, visit.pair) if shown]
    words = comparing.table(*((s.name, s.mode, s.take.metadata) for s in pair)) if len(pair) == 2 else ""
    listed = takes_panel.listed(rows, visit.on, visit.pair)
    return [listed, *comparing.shown([track(shown) for shown in pair], words)]


def _what(shown: Shown) -> str:
    minutes, seconds = divmod(round(shown.take.metadata["audio"]["seconds"]), 60)
    take, of = modes.placed(shown.take)
    place = f" {take}/{of}" if of > 1 else ""  # as short as the rail is narrow
    return f"{shown.mode.__name__}{place} · {minutes}:{seconds:02}"


def track(shown: Shown) -> Any:
    """A take as the player takes it, with what is new in it marked."""
    import player

    made, heard = shown.take.metadata, shown.preview
    changed = (made.get("receipt") or {}).get("changed", [])
    label = "new" if shown.mode is Extend else "edited"
    marks = [] if shown.mode is Cover or (len(changed) == 1 and _whole(changed[0], made)) else changed
    spans = tuple((a / SAMPLE_RATE, b / SAMPLE_RATE, label) for a, b in marks)
    return player.Track(heard.path, heard.seconds, heard.peaks, shown.name, spans)


def _whole(span: list[int], made: Any) -> bool:
    return span[1] - span[0] >= made["audio"]["seconds"] * SAMPLE_RATE - 1
