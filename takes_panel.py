"""The list of a visitor's finished takes: which one is on the screen, which two are compared, what to do with them.

It draws what Python gave it and nothing else: what a visitor does is a `Wish`, and the answer to it is another value.
Its look and behaviour stand in `assets/takes.css` and `assets/takes.js`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr

_ASSETS = Path(__file__).parent / "assets"
VERBS = ("show", "rename", "star", "compare", "cover", "extend", "edit", "delete")

# The same for every value, so that Gradio has nothing to redraw: focus and half-typed names are left alone. <template>
# holds what one take is drawn with. The class of a button is the verb it sends.
_TEMPLATE = """
<div class="takes" role="group">
  <div class="top"><p class="head"></p><p class="none">Your takes stand here.</p></div>
  <ul class="rows" role="list"></ul>
  <div class="under"></div>
  <p class="foot">They live as long as this tab.</p>
  <template>
    <li class="take">
      <button class="show" type="button">
        <span class="line"><b class="badge"></b> <span class="name" dir="auto"></span></span>
        <span class="what"></span>
      </button>
      <input class="box" type="text" maxlength="60" autocomplete="off" dir="auto" hidden>
      <button class="star" type="button" title="Star">
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M8 1.6l1.9 4.3 4.7.5-3.5 3.1 1 4.6L8 11.7l-4.1 2.4 1-4.6L1.4 6.4l4.7-.5z"/>
        </svg>
      </button>
      <button class="second compare" type="button">Compare</button>
      <div class="deeds" role="group">
        <button class="cover" type="button" title="Send to Cover">Cover</button>
        <button class="extend" type="button" title="Send to Extend">Extend</button>
        <button class="edit" type="button" title="Send to Edit">Edit</button>
        <button class="first compare" type="button">Compare</button>
        <button class="rename" type="button">Rename</button>
        <button class="delete" type="button">Delete</button>
        <button class="keep" type="button" hidden>Keep</button>
      </div>
    </li>
  </template>
</div>
"""


@dataclass(frozen=True)
class Row:
    """A take: an opaque `id`, its name, `what` it is ("Generate · 0:30"), what pointing at it tells ("seed 42")."""

    id: str
    name: str
    what: str
    told: str
    starred: bool = False


@dataclass(frozen=True)
class Wish:
    """What a visitor wants: one of VERBS, for the take of this id. To rename it, `text` is the new name."""

    verb: str
    id: str
    text: str = ""


def take_list(**look: Any) -> gr.HTML:
    """A list of takes; its value is what `listed` gives.

    It fires `input` when the visitor wishes for something; as an input it then gives what `wished` reads. It changes
    nothing until it is given another value. `look` goes to `gr.HTML`; a `label` is the list's name for screen readers.
    """
    own = {
        "value": listed([]),
        "html_template": _TEMPLATE,
        "css_template": (_ASSETS / "takes.css").read_text(encoding="utf-8"),
        "js_on_load": (_ASSETS / "takes.js").read_text(encoding="utf-8"),
        "apply_default_css": False,
    }
    return gr.HTML(**{**own, **look})


def listed(rows: Sequence[Row], on: str = "", pair: Sequence[str] = ()) -> dict[str, Any]:
    """The list's value: `rows` from the newest to the oldest, the id that is `on` the screen, the ids to compare.

    Ids are unique. A `pair` holds none, one or two of them, which are shown as A and B.
    """
    return {"rows": [asdict(row) for row in rows], "on": on, "pair": list(pair)}


def wished(value: Any) -> Wish | None:
    """What the visitor wants, out of the list's value; None where that is nothing, unknown or malformed.

    Neither the id nor the length of the text is checked: both come from the browser.
    """
    wish = value.get("wish") if isinstance(value, dict) else None
    if not isinstance(wish, dict):
        return None
    verb, name, text = wish.get("verb"), wish.get("id"), wish.get("text", "")
    if verb not in VERBS or not isinstance(name, str) or not isinstance(text, str):
        return None
    return Wish(verb, name, text)
