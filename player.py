"""The player: what one listens to a take with, or to two and more of them by turns at the same place (A/B).

It loads no sound before it has to and decodes none for its waveform, which is drawn from peaks that came with the track.
Its look and behaviour stand in `assets/player.css` and `assets/player.js`. Pressing play asks nothing of Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

_ASSETS = Path(__file__).parent / "assets"

# The same for every value, so that Gradio has nothing to redraw. <template> holds what each track or mark is drawn with.
_TEMPLATE = """
<div class="deck" role="group">
  <div class="pills" role="radiogroup" aria-label="Version" hidden></div>
  <div class="main">
    <button class="play" type="button" aria-label="Play" disabled>
      <svg viewBox="0 0 16 16" aria-hidden="true">
        <path class="off" d="M4 2l10 6-10 6z"/><path class="on" d="M3 2h4v12H3zM9 2h4v12H9z"/>
      </svg>
    </button>
    <div class="stage">
      <div class="marks"></div>
      <canvas aria-hidden="true"></canvas>
      <div class="position" role="slider" aria-label="Position" tabindex="0"></div>
      <p class="empty" hidden></p>
    </div>
    <div class="times"><span class="time">0:00</span><span class="duration">0:00</span></div>
    <div class="loudness">
      <button class="mute" type="button" aria-label="Mute">
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M1 5h3l4-4v14l-4-4H1z"/><path class="off" d="M11 4q4 4 0 8" fill="none" stroke="currentColor"/>
          <path class="on" d="M10.5 5.5l5 5m0-5l-5 5" fill="none" stroke="currentColor"/>
        </svg>
      </button>
      <input class="volume" type="range" min="0" max="1" step="0.05" value="1" aria-label="Volume">
    </div>
  </div>
  <template>
    <audio></audio>
    <button class="pill" type="button" role="radio"><b></b> <bdi></bdi></button>
    <div class="mark"></div>
    <bdi class="label"></bdi>
  </template>
</div>
"""


@dataclass(frozen=True)
class Track:
    """What is played: a file, `seconds` long, whose `name` is for people.

    `path` is the absolute path of an MP3 that Gradio may serve. `peaks` (0 to 1, evenly spaced, some 400) draw the
    waveform; without any it is a plain line. `marks` are spans to point out as (start, end, label), in seconds; one that
    ends where it starts is a seam.
    """

    path: str
    seconds: float
    peaks: list[float]
    name: str
    marks: Sequence[tuple[float, float, str]] = ()


def player(empty: str = "", **look: Any) -> gr.HTML:
    """A player, empty until its value is set to what `playing` gives, and again when that is None.

    `empty` is shown in place of the waveform while there is no track. The player never sends anything. `look` goes to
    `gr.HTML`; a `label` is the player's name for screen readers.
    """
    own = {
        "value": None,
        "html_template": _TEMPLATE,
        "css_template": (_ASSETS / "player.css").read_text(encoding="utf-8"),
        "js_on_load": (_ASSETS / "player.js").read_text(encoding="utf-8"),
        "apply_default_css": False,
        "empty": empty,
    }
    return gr.HTML(**{**own, **look})


def playing(*tracks: Track) -> dict[str, Any]:
    """The player's value for a track, or for several, which are then switched between at the same place."""
    return {"tracks": [_told(track) for track in tracks]}


def _told(track: Track) -> dict[str, Any]:
    return {
        "path": str(track.path),
        "seconds": round(float(track.seconds), 3),
        "peaks": [round(float(peak), 3) for peak in track.peaks],
        "name": track.name,
        "marks": [[float(start), float(end), label] for start, end, label in track.marks],
    }
