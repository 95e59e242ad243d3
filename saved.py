"""A plan as it is saved and read again: out of a take's recipe, into a file, out of a visitor's file. No widgets here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from errors import KnobError
from plans import CODE_RATE, Plan, unwrapped
from remakes import MODES
from song import DURATION_RANGE, Generate

SAVED_MAX_BYTES = 1_000_000
NO_PLAN = "This file holds no plan."
HOW = "Choose one from Save plan, or the recipe of a take."


@dataclass(frozen=True)
class Saved:
    """A plan and where it belongs: the mode, for Generate the duration in seconds."""

    mode: str
    plan: Plan
    duration_s: float | None = None

    def file(self) -> bytes:
        """What `read` reads."""
        content = {"mode": self.mode, "duration_s": self.duration_s, "plan": self.plan.model_dump(mode="json")}
        return json.dumps(content, indent=2, ensure_ascii=False).encode()


def of(recipe: Mapping[str, Any]) -> Saved | None:
    """The plan of a take's recipe, of the planner's part of one, or of a saved file; None when there is none.

    Raises ValidationError, a ValueError, when what is there cannot be used.
    """
    try:
        raw = unwrapped(recipe)
    except PydanticCustomError:  # a recipe of a song without one
        return None
    if not isinstance(raw, Mapping) or not raw.keys() & Plan.model_fields.keys():
        return None
    plan, mode = Plan.model_validate(raw), recipe.get("mode")
    mode = mode if mode in [known.mode for known in MODES] else Generate.mode
    return Saved(mode, plan, _duration(recipe, plan) if mode == Generate.mode else None)


def read(path: str) -> Saved:
    """The plan in a visitor's file. Raises KnobError with one sentence."""
    if Path(path).stat().st_size > SAVED_MAX_BYTES:
        raise KnobError(f"This file is too large for a plan: {SAVED_MAX_BYTES // 1_000_000} MB is the limit.", HOW)
    try:
        recipe = json.loads(Path(path).read_bytes())
        found = of(recipe) if isinstance(recipe, Mapping) else None
    except ValidationError as error:
        name = " ".join(str(part) for part in error.errors()[0]["loc"][:1])
        raise KnobError(f"The plan in this file cannot be used: its {name} is not what a plan holds.", HOW) from None
    except (ValueError, RecursionError):
        raise KnobError("This file is no saved plan: it is not JSON.", HOW) from None
    if found is None or found.plan == Plan():
        raise KnobError(NO_PLAN, HOW)
    return found


def _duration(recipe: Mapping[str, Any], plan: Plan) -> float | None:
    """The seconds that a recipe says, else those that its codes last."""
    seconds = recipe.get("duration_s")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        seconds = len(plan.codes) // CODE_RATE
    return seconds if DURATION_RANGE[0] <= seconds <= DURATION_RANGE[1] else None
