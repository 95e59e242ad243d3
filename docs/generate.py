"""`python -m docs.generate` writes docs/knobs.md from the knob table; `--check` fails when it is stale."""

from __future__ import annotations

import sys

from afters import AFTERS
from drafts import DRAFTS
from fields import Knob, fields_of
from lyrics import Lyrics
from remakes import MODES
from settings import CHECKPOINTS, ROOT
from song import GROUPS, KNOBS, SongRequest, controls
from tooltips import TIPS

KNOBS_MD = ROOT / "docs" / "knobs.md"
HEAD = """# The controls

Written by `make docs` from `song.py`, `remakes.py`, `drafts.py`, `lyrics.py`, `afters.py` and `tooltips.py`; do not edit. The names are those of the
public endpoints; a song's has its mode's own controls, then the 21 knobs, then `retakes`, `plan`, `loras` and `takes`.
"""
COLUMNS = ["| name | label | range | default | what it does |", "| --- | --- | --- | --- | --- |"]


def shown(value: object) -> str:
    """A default as a reader would type it."""
    return "on" if value is True else "off" if value is False else "empty" if value in (None, "", ()) else str(value)


def row(k: Knob) -> str:
    """One line of a table."""
    return f"| `{k.name}` | {k.label} | {k.range} | {shown(k.default)} | {TIPS[k.name]} |"


def knobs() -> str:
    """The page: a table for each mode, each draft and each group of knobs, then what each checkpoint changes."""
    lines = [HEAD]
    for mode in MODES:
        own = [k for k in fields_of(mode).values() if k.name not in fields_of(SongRequest)]
        lines += [f"## /{mode.mode}\n", f"{mode.__doc__.splitlines()[0]}\n", *COLUMNS, *map(row, own), ""]
    lines += ["## Every song\n", *COLUMNS, *map(row, fields_of(SongRequest).values()), ""]
    for draft in DRAFTS:
        knobs = ", ".join(f"`{name}`" for name in controls(draft) if name in KNOBS)
        lines += [f"## /{draft.mode}\n", f"{draft.__doc__.splitlines()[0]} Besides its own it takes {knobs}.\n"]
        lines += [*COLUMNS, *map(row, fields_of(draft).values()), ""]
    lines += [
        f"## /{Lyrics.mode}\n",
        f"{Lyrics.__doc__.splitlines()[0]} Besides its own it takes `seed`, 42 unless given.\n",
    ]
    lines += [*COLUMNS, *map(row, fields_of(Lyrics).values()), ""]
    for after in AFTERS:
        lines += [f"## /{after.mode}\n", f"{after.__doc__.splitlines()[0]} Of the last take of the same session.\n"]
        if own := fields_of(after).values():
            lines += [*COLUMNS, *map(row, own), ""]
    for group in GROUPS:
        lines += [f"## {group}\n", *COLUMNS, *(row(k) for k in KNOBS.values() if k.group == group), ""]
    lines += [
        "## Other defaults by checkpoint\n",
        "| checkpoint | defaults | knobs that cannot act | what it lacks |",
        "| --- | --- | --- | --- |",
    ]
    for checkpoint in CHECKPOINTS.values():
        own = ", ".join(f"`{n}` {v:g}" for n, v in checkpoint.knobs.items()) or "as above"
        off = ", ".join(f"`{n}`: {why}" for n, why in checkpoint.off.items()) or "none"
        lines.append(f"| {checkpoint.key} | {own} | {off} | {', '.join(checkpoint.lacks) or 'nothing'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        if KNOBS_MD.read_text() != knobs():
            sys.exit("docs/knobs.md is stale: run `make docs`.")
    else:
        KNOBS_MD.write_text(knobs())
