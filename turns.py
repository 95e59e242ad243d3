"""A button that takes its turn at the GPU: what the browser does at once, what waits in the queue, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ui import Page

READ_QUEUE = {"concurrency_id": "decode", "concurrency_limit": 2}  # what visitors bring
GPU_QUEUE = {"concurrency_id": "gpu", "concurrency_limit": 1}
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def begins(
    page: Page, button: Any, work: Callable[..., Iterator], inputs: list[Any], outputs: list[Any], js: str | None = None
) -> Any:
    """A press of the button: at once only Stop can be pressed, then `work` runs when its turn has come.

    `js` may change the inputs in the browser.
    """
    import ui

    able = [page.status, *page.buttons]
    button.click(None, None, able, js=ui.before(len(page.buttons)), **QUIET)
    return button.click(work, inputs, outputs, js=js, **QUIET, **GPU_QUEUE)


def ends(page: Page, event: Any, stopped: str = "Stopped. Nothing was kept.") -> None:
    """After an end of any kind of `event`: the buttons can be pressed again, Retake if there is a take.

    The status line says if it was `stopped`.
    """
    import gradio as gr

    import ui

    able = [page.status, *page.buttons]
    event.then(None, page.status, able, js=ui.after(len(page.buttons), stopped), **QUIET)
    event.then(lambda take: gr.Button(interactive=take is not None), page.last, page.retake, queue=False, **QUIET)
