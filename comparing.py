"""Two takes side by side: what was asked of them and measured on them, as far as it differs. Words and widgets only."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from player import Track, player, playing
from song import Asked, controls

LONG = 120  # characters of a value that are shown
NO_DIFFERENCE = "The same was asked of both."


@dataclass(frozen=True)
class ComparePanel:
    """The widgets that `shown` updates."""

    column: Any
    player: Any
    table: Any
    done: Any

    @property
    def shows(self) -> list[Any]:
        """The widgets in the order of `shown`."""
        return [self.column, self.player, self.table]


def draw() -> ComparePanel:
    """The panel, hidden until two takes are compared."""
    with gr.Column(visible=False, elem_id="compare-takes") as column:
        return ComparePanel(
            column,
            player(label="Two takes", elem_id="pair", elem_classes="player"),
            gr.HTML("", elem_id="differences"),
            gr.Button("Stop comparing", size="sm", elem_id="compare-done"),
        )


def shown(tracks: list[Track], table: str = "") -> list[Any]:
    """The panel for two takes, or hidden."""
    two = len(tracks) == 2
    return [gr.Column(visible=two), playing(*tracks) if two else None, table if two else ""]


def table(one: tuple[str, type[Asked], Mapping[str, Any]], other: tuple[str, type[Asked], Mapping[str, Any]]) -> str:
    """What differs between two takes, each given by its name, its mode and its metadata."""
    rows = "".join(_row(*row) for row in differences(one[1:], other[1:]))
    if not rows:
        return f"<p>{NO_DIFFERENCE}</p>"
    heads = "".join(
        f"<th scope='col'><bdi>{letter} {html.escape(name)}</bdi></th>"
        for letter, (name, *_) in zip("AB", (one, other), strict=True)
    )
    return (
        f"<table><caption>What differs</caption><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def differences(
    one: tuple[type[Asked], Mapping[str, Any]], other: tuple[type[Asked], Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Label and both values of all that differs, in words, in the order of the controls."""
    facts = [dict(_facts(*take)) for take in (one, other)]
    for label in facts[0] | facts[1]:
        first, second = (told.get(label) for told in facts)
        words = _words(first), _words(second)
        if first != second and any(words):  # what one mode lacks and the other leaves empty is no difference
            yield label, words[0], words[1] if words[0] != words[1] else f"{words[1]} (another)"


def _facts(mode: type[Asked], made: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is known of a take, by label: how it was made, then what came of it."""
    yield "Mode", mode.__name__
    for name, k in controls(mode).items():
        yield k.label, next((part[name] for part in (made, made["advanced"], made["lm"]) if name in part), None)
    yield "Length", f"{made['audio']['seconds']:g} s"
    measured = made.get("measured") or {}
    for name, label in (("lufs", "Loudness (LUFS)"), ("bpm", "Measured tempo"), ("keyscale", "Measured key")):
        yield label, measured.get(name)


def _words(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "on", False: "off"}[value]
    if isinstance(value, Mapping):
        if "name" in value:
            return f"{value['name']} × {value['strength']:g}" if "strength" in value else str(value["name"])
        return f"{value['seconds']:.2f} s" if "seconds" in value else "its own"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    words = f"{value:g}" if isinstance(value, float) else str(value)
    return words if len(words) <= LONG else words[:LONG] + "…"


def _row(label: str, *values: str) -> str:
    cells = "".join(f"<td><bdi>{html.escape(value) or '–'}</bdi></td>" for value in values)
    return f"<tr><th scope='row'>{html.escape(label)}</th>{cells}</tr>"
