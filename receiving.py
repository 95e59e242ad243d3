"""Joins recordings to the page: whatever comes in is looked at, at once: what it is, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import audio_io
import cards
from errors import StudioError
from sound import AudioClip
from turns import QUIET, READ_QUEUE

if TYPE_CHECKING:
    from tabs import Tab
    from ui import Page

PEAKS = 400  # of a waveform to mark regions on
SOURCE = "source_audio"


def joins(page: Page) -> None:
    """Attach the look at every recording of the song tabs."""
    for tab in page.tabs:
        for name, line in tab.heard.items():
            look, inputs, outputs = _look(page, tab, name, line)
            tab.inputs[name].change(look, inputs, outputs, **READ_QUEUE, **QUIET)


def _look(page: Page, tab: Tab, name: str, line: Any) -> tuple[Callable, list[Any], list[Any]]:
    """What looks at a recording, what it is given and what it changes."""
    inputs = [tab.inputs[name], page.wanted]
    if name != SOURCE:
        return recorded(f"{tab.mode.mode}-{name}"), inputs, [line]
    inputs, outputs = [*inputs, page.lengths], [line, page.lengths]
    if "regions" not in tab.inputs:
        return source(tab.mode.mode), inputs, outputs
    editor = tab.inputs["regions"]
    return on_song_to_edit, [*inputs, editor], [*outputs, editor]


def recorded(control: str) -> Callable[[str | None, dict[str, Any]], str]:
    """What looks at the recordings of a control that is no source."""

    def on_recording(path: str | None, wanted: dict[str, Any]) -> str:
        return looked_at(path, wanted, control)[0]

    return on_recording


def source(mode: str) -> Callable[..., tuple[str, dict[str, float]]]:
    """What looks at the source of a mode: its length is kept by mode."""

    def on_source(path: str | None, wanted: dict[str, Any], lengths: dict[str, float]) -> tuple[str, dict[str, float]]:
        line, clip = looked_at(path, wanted, f"{mode}-{SOURCE}")
        return line, _lengths(lengths, mode, clip)

    return on_source


def on_song_to_edit(
    path: str | None, wanted: dict[str, Any], lengths: dict[str, float], editor: Any
) -> tuple[str, dict[str, float], dict[str, Any]]:
    """The same with its waveform to mark regions on; those of a restored recipe are marked, and those that the same song has."""
    from regions import drawn, picked

    line, clip = looked_at(path, wanted, f"edit-{SOURCE}")
    new = drawn(clip.seconds, audio_io.peaks(clip.samples, PEAKS), []) if clip else drawn(0, [], [])
    same = isinstance(editor, dict) and editor.get("peaks") == new["peaks"] and new["peaks"]
    new["regions"] = picked(editor) if same else wanted.get("edit-regions", []) if clip else []
    return line, _lengths(lengths, "edit", clip), new


def looked_at(path: str | None, wanted: dict[str, Any], control: str) -> tuple[str, AudioClip | None]:
    """A recording that may be missing or refused, and the line that says what it is or why not."""
    import ui

    if not path:
        return "", None
    try:
        clip = audio_io.admit(path)
    except StudioError as error:
        mode, _, error.control = control.partition("-")
        return cards.refusal(error, mode), None
    return ui.heard(clip, wanted.get(control)), clip


def _lengths(lengths: dict[str, float], mode: str, clip: AudioClip | None) -> dict[str, float]:
    """The lengths with that of a mode's source, or without."""
    others = {name: seconds for name, seconds in lengths.items() if name != mode}
    return others | ({mode: clip.seconds} if clip else {})
