"""Joins the page to its visit: what was made and what is being made is there after a reload, a lost line, a locked phone.

The key of a visit and what stands in the form are kept by the browser for as long as the tab lives. `assets/visit.js` presses
`page.keep` when something may have changed: an event on each of the form's parts would weigh on the page.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cards
from keeping import screen
from turns import QUIET
from visits import VISITS

if TYPE_CHECKING:
    from ui import Page

LEFT = "/studio/left"  # where a page says good-bye
KEY_LIMIT = 64  # bytes of it
RESTARTED = (
    "The studio was started anew: takes, and a song in the making, are gone. Your words are kept; add recordings again."
)
KEY = "() => window.studio.key()"
KEEP = "(...values) => { window.studio.keep(values); }"
RECALL = "(...values) => window.studio.recall(values)"
GO_ON = """line => { if (line.includes('class="running"')) document.querySelector('#again-song').click(); }"""


def joins(page: Page, blocks: Any) -> None:
    """Attach what happens when the page comes up, stays open and goes."""
    form = page.form
    page.keep.click(None, form, None, js=KEEP, **QUIET)
    recalled = blocks.load(None, form, form, js=RECALL, **QUIET)
    anew = f"() => window.studio.restarted({json.dumps(cards.status(RESTARTED))})"
    recalled.then(None, None, page.status, js=anew, **QUIET)
    here = [page.status, *page.taking, *page.screen]
    came = blocks.load(on_arrival(len(page.taking)), page.key, here, js=KEY, queue=False, **QUIET)
    came.then(None, None, page.key, js=KEY, **QUIET).then(None, page.status, None, js=GO_ON, **QUIET)
    page.beat.tick(lambda key: VISITS.at(key).touch(), page.key, None, queue=False, **QUIET)
    page.stop.click(lambda key: VISITS.at(key).stop(), page.key, None, queue=False, cancels=page.begun, **QUIET)


def on_arrival(taking: int) -> Any:
    """What brings a visit's takes back to a page that has just come up. `taking` is how many buttons need a take."""

    def arrived(key: str) -> list[Any]:
        import gradio as gr

        visit = VISITS.at(key)
        shown, line = screen(visit), gr.skip()
        if visit.making:
            line = cards.status("Going on with your song", "running")
        elif visit.takes:
            line = cards.status("Your last take is ready.")
        able = gr.update(interactive=bool(visit.shown and not visit.making))
        return [line, *[able] * taking, *(shown if visit.takes else [gr.skip()] * len(shown))]

    return arrived


def routes() -> list[Any]:
    """Where a page that is left says so: its songs end unless it is back soon."""
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def left(request: Request) -> Response:
        key = (await request.body())[:KEY_LIMIT].decode("ascii", "ignore")
        VISITS.left(key)
        return Response(status_code=204)

    return [Route(LEFT, left, methods=["POST"])]
