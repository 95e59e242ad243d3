"""A stack of LoRAs as a page, a program or a recipe asks for it, let in one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lora_presets
import lora_stack
from errors import LoraError
from fields import LORAS_MAX, clean
from lora_stack import Model
from sound import Lora

FILES = ("file", "config")
TOLD = ("name", "sha256", "bytes", "rank", "modules", "alpha", "scale")  # what a recipe says beside them
ENTRY = (*FILES, "preset", "strength", *TOLD)


def admitted(entries: Any, model: Model) -> Any:
    """What a request's `loras` are made from.

    Each entry has a `file`, with its `adapter_config.json` as `config` or without, or a `preset`, and may have a `strength`.
    With a `sha256`, as in a recipe, it must be that very file. What is no list of entries comes back as it is, for the
    request to refuse. Raises LoraError.
    """
    if not _is_stack(entries):
        return entries
    return [
        {name: value for name, value in entry.items() if name == "strength"} | {"lora": _lora(entry, model)}
        for entry in entries[: LORAS_MAX + 1]  # one too many is enough to be refused
    ]


def uploaded(entries: Any, read: Callable[[Any], str | None]) -> Any:
    """The same entries with each file as `read` finds it, which raises for one that is nobody's upload."""
    if not _is_stack(entries):
        return entries
    return [{**entry, **{name: read(entry[name]) for name in FILES if entry.get(name)}} for entry in entries]


def _is_stack(entries: Any) -> bool:
    return isinstance(entries, list | tuple) and all(isinstance(entry, Mapping) for entry in entries)


def _lora(entry: Mapping[str, Any], model: Model) -> Lora:
    name = clean(str(entry.get("name") or "a LoRA"))[: lora_stack.NAME_LIMIT]
    if unknown := sorted(map(str, entry.keys() - set(ENTRY))):
        raise LoraError(f"{unknown[0][:40]!r} is nothing that a LoRA has.", f"It has {', '.join(ENTRY[:4])}.")
    if entry.get("preset"):
        lora = lora_presets.admit(entry["preset"], model)
    elif entry.get("file"):
        lora = lora_stack.admit(entry["file"], model, entry.get("config"))
    else:
        raise LoraError(f"The file of {name} is missing.", "Add it again.")
    if entry.get("sha256") not in (None, lora.sha256):
        raise LoraError(f"{lora.name} is another file than the one that was asked for.", "Their hashes differ.")
    return lora
