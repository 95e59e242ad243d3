"""The region editor: a waveform on which a visitor marks the parts of a song to change, with two time boxes for each.

Its look and behaviour stand in `assets/regions.css` and `assets/regions.js`. A region is [start, end] in seconds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gradio as gr

_ASSETS = Path(__file__).parent / "assets"

# The same for every value, so that Gradio has nothing to redraw: focus, drags and half-typed times are left alone.
# <template> holds what one region is drawn with.
_TEMPLATE = """
<div class="regions" role="group">
  <div class="stage">
    <div class="track">
      <canvas aria-hidden="true"></canvas>
      <div class="bands"></div>
      <div class="pointed" aria-hidden="true" hidden></div>
    </div>
  </div>
  <div class="ticks" aria-hidden="true"></div>
  <div class="rows"></div>
  <div class="foot"><button class="add" type="button">Add region</button><p class="hint"></p></div>
  <template>
    <div class="handle whole" role="slider" tabindex="0"></div>
    <div class="handle start" role="slider" tabindex="0"></div>
    <div class="handle end" role="slider" tabindex="0"></div>
    <div class="region" role="group">
      <span class="name"></span>
      <label class="from"><span>Start (s)</span><input type="text" inputmode="decimal" autocomplete="off"></label>
      <label class="to"><span>End (s)</span><input type="text" inputmode="decimal" autocomplete="off"></label>
      <span class="said"></span>
      <button class="remove" type="button">Remove</button>
    </div>
  </template>
</div>
"""


def region_editor(**look: Any) -> gr.HTML:
    """An editor for the regions of one song; it is empty until its value is set to what `drawn` gives.

    As an input it gives what `picked` reads. It fires `change` when its value changes, by whomever, and before that
    `input` if it was the visitor. `look` goes to `gr.HTML`; a `label` is the editor's name for screen readers.
    """
    own = {
        "value": drawn(0, [], []),
        "html_template": _TEMPLATE,
        "css_template": (_ASSETS / "regions.css").read_text(encoding="utf-8"),
        "js_on_load": (_ASSETS / "regions.js").read_text(encoding="utf-8"),
        "apply_default_css": False,
    }
    return gr.HTML(**{**own, **look})


def drawn(seconds: float, peaks: list[float], regions: list[list[float]]) -> dict[str, Any]:
    """The editor's value for a song of `seconds`, its `peaks` (0 to 1, evenly spaced, some 400) and marked `regions`.

    The editor goes by hundredths. The length is cut to them, not rounded: the last time one can mark lies in the song.
    """
    return {
        "seconds": math.floor(round(seconds * 100, 6)) / 100,
        "peaks": [round(float(peak), 3) for peak in peaks],
        "regions": [list(region) for region in regions],
    }


def marked(value: Any, regions: list[list[float]]) -> dict[str, Any]:
    """The editor's value with other regions; it has to show a song to show them."""
    own = value if isinstance(value, dict) and value.get("seconds") else drawn(0, [], [])
    return {**own, "regions": [list(region) for region in regions]}


def picked(value: Any) -> Any:
    """The regions out of the editor's value, as marked or typed: no range is checked, an unreadable time is None.

    What is no value of the editor gives an empty list.
    """
    regions = value.get("regions") if isinstance(value, dict) else None
    return regions if isinstance(regions, list) else []
