"""A button that takes its turn at the GPU: what the browser does at once, what waits in the queue, how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sound import Take

if TYPE_CHECKING:
    from ui import Page

READ_QUEUE = {"concurrency_id": "decode", "concurrency_limit": 2}  # what visitors bring
GPU_QUEUE = {"concurrency_id": "gpu", "concurrency_limit": 1}
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Shown:
    """The take on the screen: by which mode and from which values it was made."""

    mode: type[Any]
    values: dict[str, Any]
    take: Take


def begins(
    page: Page, button: Any, work: Callable[..., Iterator], inputs: list[Any], outputs: list[Any], **how: Any
) -> Any:
    """A press of the button: at once only Stop can be pressed, then `work` runs when its turn has come.

    `how` may be `js`, which changes the inputs in the browser, or another queue than that of the GPU.
    """
    import ui

    able = [page.status, *page.buttons]
    button.click(None, None, able, js=ui.before(len(page.buttons)), **QUIET)
    return button.click(work, inputs, outputs, **QUIET, **(GPU_QUEUE | how))


def ends(page: Page, event: Any, stopped: str = "Stopped. Nothing was kept.") -> None:
    """After an end of any kind of `event`: the buttons can be pressed again, those for a take if there is one.

    The status line says if it was `stopped`.
    """
    import gradio as gr

    import ui

    able = [page.status, *page.buttons]
    taking = page.taking

    def able_with(last: Shown | None) -> list[Any]:
        return [gr.Button(interactive=last is not None) for _ in taking]

    event.then(None, page.status, able, js=ui.after(len(page.begins), len(taking), stopped), **QUIET)
    event.then(able_with, page.last, taking, queue=False, **QUIET)
