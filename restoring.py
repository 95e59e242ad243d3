"""A file of a song back to what it was asked with: which controls, which LoRAs, and what cannot be restored here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import backend
import checkpoints
import lora_presets
import recipes
import tags
from errors import EngineError, StudioError
from recipes import Recipe
from song import SongRequest, controls
from sound import Lora

CUT_S = 0.1  # what a file may differ in length from what its recipe made
Given = Mapping[type[SongRequest], Mapping[str, Any]]


@dataclass(frozen=True)
class Restored:
    """What a file restores: its recipe, the LoRAs that were found, and a sentence for all that could not be."""

    recipe: Recipe
    loras: tuple[tuple[Mapping[str, Any], Lora | None], ...]  # an entry, and its preset where it is one
    told: tuple[str, ...]

    @property
    def controls(self) -> dict[str, Any]:
        """What the mode's endpoint takes, the recordings left to be added."""
        stack = [{name: entry[name] for name in ("preset", "strength", "sha256")} for entry, lora in self.loras if lora]
        return {**self.recipe.values, "loras": stack}

    def answer(self) -> dict[str, Any]:
        """The whole as JSON values."""
        own = self.recipe
        told = {"mode": own.mode.mode, "controls": self.controls, "needs": dict(own.needs), "after": dict(own.after)}
        return {**told, "model": dict(own.model), "take": dict(own.take), "not_restored": list(self.told)}


def restore(path: str, given: Given, mine: frozenset[str] = frozenset()) -> Restored:
    """What a visitor's file restores. `given` has each mode's defaults, `mine` the hashes of LoRAs that are at hand.

    Raises AudioError for a file that cannot be read, KnobError for one without a recipe that can be used.
    """
    found = tags.read(path)
    recipe = recipes.read(found.recipe, given)
    told = [*recipe.told, *_model(recipe), *_length(recipe, found.seconds)]
    loras = tuple(_loras(recipe, mine, told))
    return Restored(recipe, loras, (*told, *_sources(recipe)))


def _model(recipe: Recipe) -> Iterator[str]:
    """What differs between the model that made a song and the one that is here."""
    row, made = backend.checkpoint(), recipe.model
    if (made.get("id"), made.get("revision")) != (row.facts["id"], row.facts["revision"]):
        other = made.get("id") or "a model that its recipe does not name"
        commit = f" at {made['revision'][:12]}" if isinstance(made.get("revision"), str) else ""
        yield f"Made with {other}{commit}; here sings {row.name}, so it will be another song."
        return
    on = checkpoints.device()
    here = {"device": on, "dtype": str(checkpoints.dtype_for(on)).removeprefix("torch.")}
    if any(made.get(name) != value for name, value in here.items()):
        there = f"{made.get('device')} in {made.get('dtype')}"
        yield f"Made on {there}; here it is {on} in {here['dtype']}: alike, not bit for bit."
    elif recipe.together:
        place = " of ".join(str(recipe.together.get(name)) for name in ("take", "of"))
        yield f"Made as take {place} in one batch; alone it is made alike, not bit for bit."


def _length(recipe: Recipe, seconds: float | None) -> Iterator[str]:
    """What to say of a file that is not as long as its recipe says."""
    made = recipe.take.get("seconds")
    if isinstance(made, int | float) and seconds is not None and abs(made - seconds) > CUT_S:
        yield f"This file has {seconds:.2f} s, its recipe makes {made:.2f} s: it was changed since."


def _loras(recipe: Recipe, mine: frozenset[str], told: list[str]) -> Iterator[tuple[Mapping[str, Any], Lora | None]]:
    """The LoRAs of a recipe that are at hand; what is missing is told."""
    for entry in recipe.loras:
        if entry["sha256"] in mine:
            yield entry, None
            continue
        lora = None
        try:
            if "preset" in entry:
                lora = lora_presets.admit(entry["preset"], backend.model())
        except (StudioError, EngineError) as error:
            told.append(f"LoRA {entry['name']} is missing: {error}")
            continue
        if lora and lora.sha256 == entry["sha256"]:
            yield entry, lora
        else:
            other = "the preset of that name has changed" if lora else "add its file to the stack again"
            told.append(f"LoRA {entry['name']} ({entry['sha256'][:8]}) is missing: {other}.")


def _sources(recipe: Recipe) -> Iterator[str]:
    """Which recordings have to be added again."""
    for name, facts in recipe.needs.items():
        label = controls(recipe.mode)[name].label
        yield f"{label}: add {described(facts)} again; recordings are not kept in a recipe."


def described(facts: Mapping[str, Any]) -> str:
    """A recording that a recipe was made from, in words."""
    kind = f"the {facts['format']}" if facts["format"] else "the recording"
    return f"{kind} of {facts['seconds']:.2f} s" if facts["seconds"] else kind
