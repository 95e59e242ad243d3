"""`python -m docs.generate` writes docs/knobs.md from the knob table; `--check` fails when it is stale."""

from __future__ import annotations

import sys

from settings import CHECKPOINTS, ROOT
from song import GROUPS, KNOBS
from tooltips import TIPS

KNOBS_MD = ROOT / "docs" / "knobs.md"
HEAD = """# The 21 knobs

Written by `make docs` from `song.py` and `tooltips.py`; do not edit. The names are those of the public endpoint.
"""


def shown(value: object) -> str:
    """A default as a reader would type it."""
    return "on" if value is True else "off" if value is False else "empty" if value in (None, "") else str(value)


def knobs() -> str:
    """The page: a table for each group, then what each checkpoint changes."""
    lines = [HEAD]
    for group in GROUPS:
        lines += [
            f"## {group}\n",
            "| name | label | range | default | what it does |",
            "| --- | --- | --- | --- | --- |",
        ]
        for k in (k for k in KNOBS.values() if k.group == group):
            lines.append(f"| `{k.name}` | {k.label} | {k.range} | {shown(k.default)} | {TIPS[k.name]} |")
        lines.append("")
    lines += [
        "## Other defaults by checkpoint\n",
        "| checkpoint | defaults | knobs that cannot act |",
        "| --- | --- | --- |",
    ]
    for row in CHECKPOINTS.values():
        own = ", ".join(f"`{n}` {v:g}" for n, v in row.knobs.items()) or "as above"
        lines.append(f"| {row.key} | {own} | {', '.join(f'`{n}`: {why}' for n, why in row.off.items()) or 'none'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        if KNOBS_MD.read_text() != knobs():
            sys.exit("docs/knobs.md is stale: run `make docs`.")
    else:
        KNOBS_MD.write_text(knobs())
