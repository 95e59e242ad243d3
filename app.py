"""ACE Music Studio: joins the page to the modes and serves it.

`python app.py` is the studio on this machine and on a Hugging Face Space alike.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

# Before gradio and torch are imported: no telemetry, and the few operations that MPS lacks run on the CPU.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import api
import audio_io
import backend
import bringing
import choosing
import drafting
import estimating
import finish
import finishing
import keeping
import lora_stack
import making
import modes
import receiving
import returning
import sharing
import stacking
import turns
import writing
from afters import AFTERS
from errors import EngineError
from settings import SettingError, read
from turns import GPU_QUEUE, QUIET, READ_QUEUE

if TYPE_CHECKING:
    pass

log = logging.getLogger("ace.app")


def studio() -> Any:
    """The page with its behaviour: a `gr.Blocks`, not yet launched."""

    import checkpoints
    import ui
    from widgets import Desk

    given = {mode: modes.defaults(mode) for mode in (*modes.HANDLERS, *AFTERS)}
    models = (backend.checkpoint(), backend.lyricist_row())
    backend.stems_row()  # what is wrong with its setting is said now, not under a song
    off = (modes.unavailable(), drafting.unavailable(), stacking.offered(), finish.unavailable())
    desk = Desk(*models, given, *off, backend.tier_name())
    blocks, page = ui.build(desk, checkpoints.device())
    with blocks:
        turns.joins(page)
        page.begun += making.joins(page)
        for tab in page.tabs:
            page.begun += drafting.joins(page, tab)
            inputs = page.inputs(tab)
            for button, filled in tab.examples:
                targets = [inputs[name] for name in (*filled, "plan")]
                button.click(lambda filled=filled: [*filled.values(), None], None, targets, queue=False, **QUIET)
        page.begun += finishing.joins(page, desk)
        page.begun += writing.joins(page)
        bringing.joins(page, desk)
        stacking.joins(page)
        receiving.joins(page)
        keeping.joins(page)
        estimating.joins(page, blocks)
        choosing.joins(page, desk)
        returning.joins(page, blocks)
    api.joins(blocks, GPU_QUEUE, READ_QUEUE)
    return blocks


def serve(blocks: Any) -> None:
    """Serve the page until stopped."""
    import importlib.util

    from fastapi import Request
    from fastapi.middleware import Middleware
    from fastapi.responses import JSONResponse

    import theme

    def unknown_name(request: Request, error: Exception) -> JSONResponse:
        # gradio checks the names of an API call outside its own error handling
        if not str(error).startswith(("Parameter `", "No value provided")):
            raise error
        return JSONResponse({"error": str(error).split(" Please click")[0]}, status_code=422)

    settings = read()
    blocks.queue(max_size=settings.queue_size, api_open=False).launch(
        server_name=settings.host,
        server_port=settings.port,
        theme=theme.theme(),
        css_paths=theme.CSS,
        js=theme.JS,
        head=theme.HEAD,
        run_history=False,
        ssr_mode=False,
        footer_links=["api"],
        max_file_size=max(audio_io.AUDIO_MAX_BYTES, lora_stack.LORA_MAX_BYTES),
        mcp_server=importlib.util.find_spec("mcp") is not None,
        pwa=True,
        app_kwargs={
            "exception_handlers": {TypeError: unknown_name},
            "routes": [*api.routes(), *returning.routes(), *sharing.routes()],
            "middleware": [Middleware(sharing.ShareCards)],
        },
    )


def main() -> None:
    """Build what must be built before the first visitor, then serve until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines would carry visitors' ZeroGPU tokens
    try:
        if read().zero_gpu:
            build_ahead()
        blocks = studio()
    except SettingError as error:
        raise SystemExit(str(error)) from None
    serve(blocks)


def build_ahead() -> None:
    """On ZeroGPU: a worker is forked from this process, so what is built here is there already.

    What is built later would be paid again by every fresh worker, out of the visitor's quota.
    """
    try:
        backend.get_backend()
        if backend.planner_row():
            backend.get_planner()
    except EngineError as error:
        log.error("%s", error)  # the page starts all the same and says so with the first song


if __name__ == "__main__":
    main()
