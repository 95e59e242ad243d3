"""Joins songs to the page: a press becomes a take of the visit, told step by step, and stands on the screen when it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import api
import cards
import modes
from errors import Stopped, in_our_words
from keeping import added, screen
from listening import preview
from song import SongRequest
from sound import Progress, Take
from turns import begins, ends
from visits import VISITS, Making, Shown, Visit

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page


def joins(page: Page) -> list[Any]:
    """Attach every button that makes a song; returns what Stop has to end."""
    begun = [sings(page, tab) for tab in page.tabs]
    begun.append(_begins(page, page.retake, retake, [page.key, page.last, page.variance]))
    begun.append(_begins(page, page.again, watch_on, [page.key], concurrency_id="watch", concurrency_limit=None))
    return begun


def sings(page: Page, tab: Tab) -> Any:
    """A tab's button begins a song."""
    inputs = page.inputs(tab)
    return _begins(page, tab.button, singer(tab.mode, list(inputs)), [page.key, *inputs.values()])


def _begins(page: Page, button: Any, song: Callable[..., Iterator], inputs: list[Any], **how: Any) -> Any:
    event = begins([button], song, inputs, [page.status, *page.screen], **how)
    ends(page, event)
    return event


def singer(mode: type[SongRequest], names: list[str]) -> Callable[..., Iterator[list[Any]]]:
    """What a mode's button does with the values of its controls."""

    def on_press(key: str | None, *values: Any) -> Iterator[list[Any]]:
        asked = dict(zip(names, values, strict=True))
        asked["retakes"] = (asked["retakes"] or {}).get("retakes", [])
        yield from sung(VISITS.at(key), mode, asked)  # gradio looks for a generator function

    on_press.__name__ = f"on_{mode.mode}"
    return on_press


def retake(key: str | None, last: Shown | None, variance: float) -> Iterator[list[Any]]:
    """The take on the screen once more, its noise turned towards a new seed; short of a new take it keeps its plan."""
    if last:
        values, planner = last.values, last.take.metadata["planner"]
        plan = (planner or {}).get("plan") if variance < 1 else None
        again = {**values, "retakes": [*values["retakes"], [-1, variance]]}
        yield from sung(VISITS.at(key), last.mode, again, plan)


def sung(visit: Visit, mode: type[SongRequest], values: dict[str, Any], plan: Any = None) -> Iterator[list[Any]]:
    """A song as the page is told of it: the status line, and the screen when there is a take.

    `plan` stands in for the one that was brought, in this song alone.
    """
    yield from told(visit, visit.begin(made(visit, mode, values, plan), mode.mode))


def watch_on(key: str | None) -> Iterator[list[Any]]:
    """A song that is still being made when the page comes back, from where it is, and what was finished since."""
    import gradio as gr

    visit = VISITS.at(key)
    if visit.making:
        yield [gr.skip(), *screen(visit)]
        yield from told(visit, visit.making)


def made(visit: Visit, mode: type[SongRequest], values: dict[str, Any], plan: Any) -> Generator[Progress | Shown]:
    """Progress, then the take, which is the visit's before anybody is told of it. Raises StudioError."""
    import lora_panel
    from regions import picked

    wanted = {**values, "loras": api.uploaded_stack(lora_panel.picked(values["loras"]))}
    wanted |= {"regions": picked(values["regions"])} if "regions" in values else {}
    wanted |= {"plan": plan} if plan else {}
    for event in modes.run(modes.SONGS[mode], wanted):
        yield kept(visit, mode, values, event) if isinstance(event, Take) else event


def kept(visit: Visit, mode: type[SongRequest], values: dict[str, Any], take: Take) -> Shown:
    """A finished take in its visit's list, with what is played of it."""
    asked = {**values, "seed": take.metadata["seed"], "retakes": take.metadata["retakes"], "takes": 1}
    shown = Shown(mode, asked, take, take.recipe["title"], preview(take.path))
    visit.add(shown, beside=modes.placed(take)[0] > 1)
    return shown


def told(visit: Visit, making: Making) -> Iterator[list[Any]]:
    """What the page is told while a song is made; whatever is on the screen stays until there is a new take.

    Of several takes only the first comes on the screen by itself.
    """
    import gradio as gr

    rest = [gr.skip() for _ in screen(Visit())]
    yield [cards.status("Starting", "running"), *rest]
    try:
        for event in visit.watch(making):
            if isinstance(event, Shown):
                take, of = modes.placed(event.take)
                kind = "done" if take == of else "running"
                line = cards.status(modes.summary(event.take), kind, if_stopped=if_stopped(making))
                yield [line, *(screen(visit) if visit.on == event.id else added(visit))]
            else:
                yield [cards.progress(event, if_stopped(making)), *rest]
    except Stopped:
        yield [cards.status(if_stopped(making)), *rest]
    except Exception as error:
        yield [cards.refusal(in_our_words(error), making.at), *rest]


def if_stopped(making: Making) -> str:
    """What is said if a song is stopped now."""
    takes = making.finished
    return cards.stopped(len(takes), modes.placed(takes[-1].take)[1]) if takes else cards.STOPPED
