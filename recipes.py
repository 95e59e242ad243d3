"""The recipe that travels in a song's own file: written when a song is made, read from files that nobody vouches for.

It holds what the song was asked with and nothing that differs between two renderings of the same: no time, no speed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

import sound
import tags
from afters import Export
from errors import KnobError, StudioError
from fields import Knob, Stacked, clean, fields_of
from refusals import refusal
from remakes import MODES
from settings import VERSION
from song import INSTRUMENTAL, Advanced, LMOptions, SongRequest, controls
from sound import SAMPLE_RATE, AudioClip, Sound

SCHEMA = "ace-music-studio"
VERSION_OF_RECIPES = 1
TITLE_SHOWN = 60  # characters of a prompt that make a title
HASH = re.compile(r"[0-9a-f]{64}")
NO_RECIPE = "This file holds no recipe."
WHICH = "Drop a song that this studio made: WAV, FLAC, OGG or MP3."


def of(request: SongRequest, made: Sound, held: np.ndarray) -> dict[str, Any]:
    """The recipe of a song, as JSON values. `held` are its samples [2, n] as its file holds them.

    The plan is the one that was followed, so that a second rendering has nothing left to plan. `together` stands in it only
    where others in its batch had a part in the take.
    """
    flat = request.model_dump(mode="json")
    flat |= {**flat.pop("advanced"), **flat.pop("lm"), "seed": request.advanced.seed}
    flat["plan"] = (made.planner or {}).get("plan") or flat["plan"]
    together = made.together or {}
    return {
        "schema": SCHEMA,
        "version": VERSION_OF_RECIPES,
        "app": VERSION,
        "mode": request.mode,
        "controls": {name: flat[name] for name in controls(type(request))},
        "model": dict(made.model),
        "take": {
            "sha256": sound.sha256(held),
            "seconds": held.shape[1] / SAMPLE_RATE,
            "sample_rate": SAMPLE_RATE,
            "channels": held.shape[0],
        },
        "parents": {
            name: flat[name]["file"]["take"]
            for name, k in controls(type(request)).items()
            if k.kind == "audio" and flat[name] and "take" in flat[name]["file"]
        },
        "title": title_of(request),
        "lyrics": "" if request.sung == INSTRUMENTAL else request.sung,
        **({"together": dict(together)} if together.get("batch") else {}),
    }


def title_of(request: SongRequest) -> str:
    """What a song is called until its maker says otherwise: the beginning of its prompt."""
    words = " ".join(request.prompt.split())
    if len(words) > TITLE_SHOWN:
        words = words[: TITLE_SHOWN + 1].rpartition(" ")[0] or words[:TITLE_SHOWN]
    return words.rstrip(" ,;:.-") or f"Song {request.advanced.seed}"


def text(recipe: Mapping[str, Any]) -> str:
    """A recipe as it stands in a file: the same recipe gives the same text."""
    return json.dumps(recipe, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def signed(clip: AudioClip, path: str | Path) -> AudioClip:
    """A recording that was let in, with the name of the take that it is, if this studio made it: its `file["take"]`."""
    try:
        raw = json.loads(tags.read(path).recipe or "null")
        take = raw["take"]["sha256"]
    except (StudioError, ValueError, LookupError, TypeError, RecursionError):
        return clip
    known = isinstance(take, str) and HASH.fullmatch(take)
    return AudioClip(clip.samples, {**clip.file, "take": take}) if known else clip


@dataclass(frozen=True)
class Recipe:
    """A recipe that was let in: what can be restored of it, and `told`, a sentence for all that cannot.

    `values` are those of the mode's controls, all of them, recordings and LoRAs left out; `needs` the recordings it was made
    from, as `AudioClip.facts` says them; `loras` its stack, as `Stacked` says it; `after` how the file was exported; `together` which
    of how many takes of one batch it is.
    """

    mode: type[SongRequest]
    values: Mapping[str, Any]
    needs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    loras: tuple[Mapping[str, Any], ...] = ()
    after: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    take: Mapping[str, Any] = field(default_factory=dict)
    together: Mapping[str, Any] = field(default_factory=dict)
    told: tuple[str, ...] = ()


def read(found: str | None, given: Mapping[type[SongRequest], Mapping[str, Any]]) -> Recipe:
    """The recipe in a text out of a visitor's file; `given` has the defaults of each mode's controls.

    What cannot be used stands at its default, and `told` says so. Raises KnobError when nothing can be used.
    """
    if not found:
        raise KnobError(NO_RECIPE, WHICH)
    try:
        raw = json.loads(found)
    except (ValueError, RecursionError):
        raise KnobError("The recipe in this file is damaged: it is not JSON.", WHICH) from None
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA or not isinstance(raw.get("controls"), Mapping):
        raise KnobError(NO_RECIPE, WHICH)
    mode = next((mode for mode in MODES if mode.mode == raw.get("mode")), None)
    if mode is None:
        raise KnobError(f"The recipe in this file is for {_shown(raw.get('mode'))}, which this studio cannot do.")
    told = list(_ages(raw))
    own, known = raw["controls"], controls(mode)
    values = _values(mode, own, given[mode], told)
    return Recipe(
        mode=mode,
        values=values,
        needs={n: _source(own[n]) for n, k in known.items() if k.kind == "audio" and isinstance(own.get(n), Mapping)},
        loras=tuple(_loras(own.get("loras"), told)),
        after=_after(raw.get("after"), told),
        model=_plain(raw.get("model")),
        take=_plain(raw.get("take")),
        together=_plain(raw.get("together")),
        told=tuple(told),
    )


def _ages(raw: Mapping[str, Any]) -> list[str]:
    """What to say of a recipe from another studio than this."""
    version = raw.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        return ["The recipe does not say its version; it is read as one of today."]
    if version > VERSION_OF_RECIPES:
        return [
            f"The recipe comes from a newer studio (version {_shown(version)}): what this one knows of it is restored."
        ]
    app = raw.get("app")
    return [] if app == VERSION else [f"Made with studio {_shown(app)}; this is {VERSION}."]


def _values(
    mode: type[SongRequest], own: Mapping[str, Any], given: Mapping[str, Any], told: list[str]
) -> dict[str, Any]:
    """The value of each control that is no recording and no LoRA, its default where the recipe's cannot be used."""
    known = {n: k for n, k in controls(mode).items() if k.kind not in ("audio", "loras")}
    values = {}
    for name, k in known.items():
        try:
            values[name] = checked(mode, k, own[name]) if name in own else given[name]
        except KnobError as error:
            values[name] = given[name]
            told.append(f"Not restored: {error.message}")
    if strange := [name for name in own if name not in controls(mode)]:
        told.append(f"Unknown here and left out: {', '.join(_shown(name) for name in strange[:5])}.")
    if values["cfg_interval_start"] > values["cfg_interval_end"]:  # the one rule between knobs of the shared panel
        told.append("Not restored: the CFG interval, whose start is above its end.")
        values |= {name: given[name] for name in ("cfg_interval_start", "cfg_interval_end")}
    return values


def checked(mode: type[Any], k: Knob, value: Any) -> Any:
    """One control's value as its field reads it, as JSON. Raises KnobError in the words of the request."""
    model = next(model for model in (mode, Advanced, LMOptions) if k.name in model.model_fields)
    info = model.model_fields[k.name]
    kind = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    try:
        adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        raise KnobError(refusal(error, {k.name: k}, k.name).message) from None


def _loras(stack: Any, told: list[str]) -> list[dict[str, Any]]:
    """The LoRAs of a recipe: name, sha256, preset and strength of each, as plain text and numbers."""
    strength, found = fields_of(Stacked)["strength"], []
    for entry in stack if isinstance(stack, list) else []:
        entry = entry if isinstance(entry, Mapping) else {}
        name, digest = _shown(entry.get("name") or "a LoRA"), entry.get("sha256")
        if not isinstance(digest, str) or not HASH.fullmatch(digest):
            told.append(f"Not restored: {name}, because the recipe does not say which LoRA that is.")
            continue
        try:
            value = checked(Stacked, strength, entry.get("strength", strength.default))
        except KnobError as error:
            value = strength.default
            told.append(f"Not restored: {error.message}")
        preset = entry.get("preset")
        own = {"preset": preset} if isinstance(preset, str) else {}
        found.append({"name": name, "sha256": digest, "strength": value, **own})
    return found


def _after(after: Any, told: list[str]) -> dict[str, Any]:
    """How a file was exported, as far as it can be used again."""
    values = {}
    exported = isinstance(after, Mapping) and "format" in after  # a stem was not
    for name, k in fields_of(Export).items() if exported else ():
        try:
            values[name] = checked(Export, k, after[name]) if name in after else k.default
        except KnobError as error:
            values[name] = k.default
            told.append(f"Not restored: {error.message}")
    return values


def _source(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Which recording a recipe was made from: its hash, seconds and format, as far as it says them."""
    digest, seconds, file = facts.get("sha256"), facts.get("seconds"), facts.get("file")
    kind = file.get("format") if isinstance(file, Mapping) else None
    return {
        "sha256": digest if isinstance(digest, str) and HASH.fullmatch(digest) else "",
        "seconds": float(seconds) if _real(seconds) else None,
        "format": kind if kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF") else "",
    }


def _plain(part: Any) -> dict[str, Any]:
    """The texts and numbers of a part of a recipe, under names that are short."""
    whole = part.items() if isinstance(part, Mapping) else ()
    return {
        name: _shown(value) if isinstance(value, str) else value
        for name, value in whole
        if len(name) < 40 and (isinstance(value, str) or value is None or _real(value))
    }


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    """Anything out of a recipe as a few words of plain text."""
    words = clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=True, default=str)[:200])
    words = " ".join(words.split())
    return words if len(words) <= 60 else f"{words[:59]}…"
