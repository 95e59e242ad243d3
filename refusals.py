"""What pydantic complains of, as one sentence that names the control and its limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from errors import AudioError, InputError, KnobError, LoraError, TextError
from fields import Knob, Stacked, fields_of

PAIRS = {  # what pairs are of
    "regions": "start and end in seconds, such as [[12.5, 20]]",
    "retakes": "a seed and a variance from 0 to 1, such as [[-1, 0.3]]",
}


def refusal(error: ValidationError, known: Mapping[str, Knob], name: str = "") -> InputError:
    """The first complaint as one sentence; `known` are the controls by name.

    `name` is the control whose value was looked at on its own; else the error says where it was.
    """
    first = error.errors()[0]
    where = (name, *first["loc"]) if name else first["loc"]
    control, got, place = known[where[0]], first["input"], ""
    if control.kind == "audio":
        return AudioError(f"{control.label} must be a recording.")
    if control.kind == "object":
        part = " ".join(str(part) for part in where[1:2])
        return KnobError(f"{control.label} must be a saved plan{f'; its {part} cannot be used' if part else ''}.")
    if control.kind == "pairs":
        return KnobError(f"{control.label} must be {control.range} of {PAIRS[control.name]}.")
    if control.kind == "loras":
        if where[2:] != ("strength",):
            return LoraError(f"{control.label} must be {control.range}, each with a strength.")
        place, control = f" of LoRA {where[1] + 1}", fields_of(Stacked)["strength"]
    if first["type"] == "string_too_long":
        return TextError(f"{control.label} may hold {control.high:,.0f} characters; yours has {len(got):,}.")
    if first["type"] == "key":
        wanted = first["msg"]
    elif control.kind == "choice":
        wanted = f"one of {control.range}" if len(control.choices) < 9 else control.range
    else:
        words = {"int": "a whole number from ", "float": "a number from ", "bool": "", "text": "text "}
        wanted = (words[control.kind] + control.range).strip()
    return KnobError(f"{control.label}{place} must be {wanted}; it is {_shown(got)}.")


def _shown(got: Any) -> str:
    try:
        shown = "empty" if got is None else repr(got)
    except ValueError:  # Python prints no number of more than 4,300 digits
        return "far too long"
    return shown if len(shown) <= 40 else shown[:40] + "…"
