"""The LoRAs that come with the studio: `presets/manifest.json`, of which only those are offered that fit the loaded model.

A preset is a folder in `presets/`, or a file of a Hub repository at a pinned commit, fetched when it is first used.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import lora_stack
from errors import LoraError
from lora_scales import CONFIG
from lora_stack import Model
from settings import ROOT
from sound import Lora

log = logging.getLogger("ace.presets")

FOLDER = ROOT / "presets"
WEIGHTS = "adapter_model.safetensors"
NOT_HERE = "not on this machine"
NO_NETWORK = f"{NOT_HERE}, and there is no network to fetch it"


@dataclass(frozen=True)
class Preset:
    """A row of the manifest. `width` is that of the layers it was made for; without `repo` it is a folder named `key`.

    `config` says whether an `adapter_config.json` belongs to it: without that it would play at another strength.
    """

    key: str
    name: str
    width: int
    note: str
    repo: str = ""
    revision: str = ""
    config: bool = True

    def files(self, local_only: bool = False) -> list[Path]:
        """Its weights, and its configuration if it has one, fetched if need be.

        Raises FileNotFoundError, or what huggingface_hub raises, when one cannot be had.
        """
        names = [WEIGHTS, CONFIG] if self.config else [WEIGHTS]
        if self.repo:
            from huggingface_hub import hf_hub_download

            own = {"revision": self.revision, "local_files_only": local_only}
            return [Path(hf_hub_download(self.repo, name, **own)) for name in names]
        found = [FOLDER / self.key / name for name in names]
        if not all(path.is_file() for path in found):
            raise FileNotFoundError(FOLDER / self.key)
        return found


@cache
def manifest() -> tuple[Preset, ...]:
    """Every preset there is."""
    return tuple(Preset(**row) for row in json.loads((FOLDER / "manifest.json").read_text()))


def offered(model: Model) -> dict[str, Preset]:
    """The presets that were made for layers as wide as the model's, by key."""
    return {preset.key: preset for preset in manifest() if preset.width == model.width}


def absent(preset: Preset) -> str:
    """Why a preset cannot be had now, as far as that is known without asking the network; else empty."""
    try:
        preset.files(local_only=True)
    except Exception:  # the Hub's client has many kinds
        if not preset.repo:
            return NOT_HERE
        return NO_NETWORK if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE") else ""
    return ""


def admit(key: str, model: Model) -> Lora:
    """The LoRA of a preset. Raises LoraError when it cannot be had or does not fit."""
    if not (preset := offered(model).get(str(key))):
        known = ", ".join(offered(model)) or "none"
        raise LoraError(f"{str(key)[:40]!r} is no preset for {model.name}; there are: {known}.")
    try:
        weights, *config = preset.files()
    except Exception as error:
        log.warning("preset %s did not load", preset.key, exc_info=error)
        why = NO_NETWORK if preset.repo else NOT_HERE
        raise LoraError(f"{preset.name} is {why}.", "Your other LoRAs work.") from error
    return replace(lora_stack.admit(weights, model, *(config or [None]), preset.name), preset=preset.key)
