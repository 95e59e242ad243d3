"""The stack of LoRAs as an editor: one row for each, with its own strength, in an order that can be changed.

Its look and behaviour stand in `assets/loras.css` and `assets/loras.js`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from sound import Lora

_ASSETS = Path(__file__).parent / "assets"
NO_ALPHA = (
    "It does not say its alpha: its weights are taken as they are. If it has an adapter_config.json, add both together."
)
TOLD = ("name", "kind", "rank", "modules", "sha256", "note")  # of a row, as its LoRA says it

# The same for every value, so that Gradio has nothing to redraw: focus and drags are left alone.
# <template> holds what one LoRA is drawn with.
_TEMPLATE = """
<div class="loras" role="group">
  <p class="head" aria-live="polite"></p>
  <div class="rows"></div>
  <template>
    <div class="lora" role="group">
      <span class="place" aria-hidden="true"></span>
      <span class="name"></span>
      <span class="facts"></span>
      <span class="strength">
        <label><span>Strength</span><input type="range" min="0" max="1.5" step="0.05"></label>
        <input class="number" type="text" inputmode="decimal" autocomplete="off">
      </span>
      <span class="moves">
        <button class="up" type="button">&#8593;</button>
        <button class="down" type="button">&#8595;</button>
        <button class="remove" type="button">&#215;</button>
      </span>
      <span class="wrong" aria-live="polite"></span>
      <span class="remark"></span>
    </div>
  </template>
</div>
"""


def stack_editor(**look: Any) -> gr.HTML:
    """An editor for a stack of LoRAs; its value is what `stacked` gives.

    As an input it gives what `rows` and `picked` read. It fires `change` when its value changes, by whomever, and before
    that `input` if it was the visitor. `look` goes to `gr.HTML`; a `label` is the editor's name for screen readers.
    """
    own = {
        "value": stacked([]),
        "html_template": _TEMPLATE,
        "css_template": (_ASSETS / "loras.css").read_text(encoding="utf-8"),
        "js_on_load": (_ASSETS / "loras.js").read_text(encoding="utf-8"),
        "apply_default_css": False,
    }
    return gr.HTML(**{**own, **look})


def stacked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The editor's value for these rows."""
    return {"loras": rows}


def row(facts: Mapping[str, Any], source: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """A row: TOLD and `bytes` out of `facts`, and `source`, which only travels."""
    told = {name: facts[name] for name in TOLD}
    return {**told, "size": size(facts["bytes"]), "source": dict(source), "strength": strength}


def row_of(lora: Lora, source: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """The row of a LoRA that was let in, with what its user should know."""
    return row({**lora.facts, "kind": "LoRA", "note": "" if lora.alpha else NO_ALPHA}, source, strength)


def rows(value: Any) -> list[dict[str, Any]]:
    """The rows out of the editor's value, without what is none; an empty list for what is no value of the editor."""
    found = value.get("loras") if isinstance(value, dict) else None
    found = found if isinstance(found, list) else []
    return [r for r in found if isinstance(r, dict) and isinstance(r.get("source"), dict) and "sha256" in r]


def picked(value: Any) -> list[dict[str, Any]]:
    """What a request's stack is made from: source, hash and strength of each, as set or typed. Nothing is checked."""
    return [
        {**r["source"], "name": r.get("name"), "sha256": r["sha256"], "strength": r.get("strength")}
        for r in rows(value)
    ]


def size(count: int) -> str:
    """A number of bytes in words."""
    if count < 1_000_000:
        return f"{max(1, round(count / 1_000))} kB"
    return f"{count / 1_000_000:.1f} MB" if count < 10_000_000 else f"{round(count / 1_000_000)} MB"
