"""ACE Music Studio: joins the page to the modes and serves it.

`python app.py` is the studio on this machine and on a Hugging Face Space alike.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

# Before gradio and torch are imported: no telemetry, and the few operations that MPS lacks run on the CPU.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

import backend
import modes
from errors import EngineError, StudioError
from settings import SettingError, read
from song import Generate, Take

log = logging.getLogger("ace.app")

GPU_QUEUE = {"concurrency_id": "gpu", "concurrency_limit": 1}


def studio() -> Any:
    """The page with its behaviour: a `gr.Blocks`, not yet launched."""
    import gradio as gr

    import checkpoints
    import ui

    blocks, page = ui.build(backend.checkpoint(), checkpoints.device(), modes.defaults(), modes.unavailable())

    def nothing(line: str) -> tuple[Any, ...]:
        return line, None, gr.DownloadButton(value=None, interactive=False), None

    def on_generate(*values: Any) -> Iterator[tuple[Any, ...]]:
        yield nothing(ui.status("Starting", "running"))
        try:
            for event in modes.run(modes.generate, dict(zip(page.inputs, values, strict=True))):
                if isinstance(event, Take):
                    file = gr.DownloadButton(value=event.path, interactive=True)
                    yield ui.status(modes.summary(event)), event.path, file, dict(event.metadata)
                else:
                    yield ui.progress(event), *[gr.skip()] * 3
        except StudioError as error:
            yield nothing(ui.status(str(error), "error"))

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    buttons = [page.status, page.generate, page.stop]
    with blocks:
        # What the browser does at once, before the queue and after the end: finished, failed or stopped.
        page.generate.click(None, None, buttons, js=ui.BEFORE, **quiet)
        song = page.generate.click(
            on_generate,
            list(page.inputs.values()),
            [page.status, page.player, page.download, page.metadata],
            **quiet,
            **GPU_QUEUE,
        )
        song.then(None, page.status, buttons, js=ui.AFTER, **quiet)
        page.stop.click(None, cancels=[song], **quiet)
        for button, filled in page.examples:
            targets = [page.inputs[name] for name in filled]
            button.click(lambda filled=filled: list(filled.values()), None, targets, queue=False, **quiet)
        gr.api(modes.endpoint(Generate, modes.generate), api_name="generate", **GPU_QUEUE)
    return blocks


def serve(blocks: Any) -> None:
    """Serve the page until stopped."""
    import importlib.util

    from fastapi import Request
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
        js=theme.DARK,
        run_history=False,
        ssr_mode=False,
        footer_links=["api"],
        max_file_size="60mb",
        mcp_server=importlib.util.find_spec("mcp") is not None,
        app_kwargs={"exception_handlers": {TypeError: unknown_name}},
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
    """On ZeroGPU: a worker is forked from this process, so an engine built here is there already.

    One built later would be paid again by every fresh worker, out of the visitor's quota.
    """
    try:
        backend.get_backend()
    except EngineError as error:
        log.error("%s", error)  # the page starts all the same and says so with the first song


if __name__ == "__main__":
    main()
