"""A button that takes its turn at the GPU: what the browser does at once, what waits in the queue, how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cards import STOPPED, refusal, status
from errors import EngineFault, GpuBusy
from visits import Shown

if TYPE_CHECKING:
    from ui import Page

READ_QUEUE = {"concurrency_id": "decode", "concurrency_limit": 2}  # what visitors bring
GPU_QUEUE = {"concurrency_id": "gpu", "concurrency_limit": 1}
BUSY = GpuBusy("The studio is full: too many wait for their turn.", "Your words are kept; try again in a few minutes.")
FAULT = EngineFault("Something went wrong in the studio.", "Please try again.")
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def joins(page: Page) -> None:
    """Attach what all presses and all ends have in common. The page's weight is its events, so there is one of each."""
    import gradio as gr

    taking, able = page.taking, [page.status, *page.buttons]

    def able_with(last: Shown | None) -> list[Any]:
        return [gr.Button(interactive=last is not None) for _ in taking]

    gr.on([button.click for button in page.presses], None, None, able, js=before(len(page.buttons)), **QUIET)
    page.ended.change(able_with, page.last, taking, queue=False, **QUIET)


def begins(
    buttons: Sequence[Any], work: Callable[..., Iterator], inputs: list[Any], outputs: list[Any], **how: Any
) -> Any:
    """A press of one of the buttons: `work` runs when its turn has come.

    `how` may be `js`, which changes the inputs in the browser, or another queue than that of the GPU.
    """
    import gradio as gr

    return gr.on([button.click for button in buttons], work, inputs, outputs, **QUIET, **(GPU_QUEUE | how))


def ends(page: Page, event: Any, stopped: str = STOPPED, filled: Any = None) -> None:
    """After an end of any kind of `event`: the buttons can be pressed again, those for a take if there is one.

    The status line says if it was `stopped`, or what it had in store for that. `filled` is what follows the event and has to be done before.
    """
    able, lengths = [page.status, *page.buttons, page.ended], (len(page.begins), len(page.taking))
    # Gradio's `then` does not follow a failure, such as a queue that is full.
    for follows, failed in (((filled or event).then, False), (event.failure, True)):
        follows(None, page.status, able, js=after(*lengths, stopped, failed), **QUIET)


# What follows runs in the browser; its outputs are the status line, the page's buttons, and after an end the time of it. A line
# that still says running when the song's event has ended belongs to a song that was stopped, or that failed before it could say so.
def update(**props: Any) -> dict[str, Any]:
    return {"__type__": "update", **props}


def before(buttons: int) -> str:
    """At once: nothing else can be begun, and the song can be stopped."""
    able = [update(interactive=False)] * (buttons - 1) + [update(interactive=True)]
    return f"() => {json.dumps([status('Waiting for your turn', 'running waiting'), *able])}"


def after(begins: int, taking: int, stopped: str, failed: bool = False) -> str:
    """When a song has ended, one way or another; `stopped` is said of one that was stopped.

    What needs a take is enabled by whoever knows whether there is one, which the time of the end asks.
    """
    able = [update(interactive=True)] * begins + [update()] * taking + [update(interactive=False)]
    full, fault, end = (
        json.dumps(line) for line in (*(refusal(e, "generate") for e in (BUSY, FAULT)), status(stopped))
    )
    end = f"""{end}.replace({json.dumps(stopped)}, said => /data-stopped="([^"]+)"/.exec(line)?.at(1) ?? said)"""
    ended = f"window.studio.full ? {full} : {str(failed).lower()} && !window.studio.stopped ? {fault} : {end}"
    return f"""line => [line.includes('class="running') ? ({ended}) : line, ...{json.dumps(able)}, Date.now()]"""
