"""Joins LoRAs to the page: files that are dropped, presets that are pressed, and what the closed panel says of the stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import backend
import cards
import lora_presets
import lora_stack
from errors import EngineError, LoraError, StudioError
from fields import LORAS_MAX, Stacked, fields_of
from lora_presets import Preset
from lora_scales import CONFIG
from sound import Lora
from turns import QUIET, READ_QUEUE

if TYPE_CHECKING:
    from ui import Page


def offered() -> dict[Preset, str]:
    """The presets that fit this machine's model, each with the reason why it cannot be had now, or nothing."""
    try:
        fitting = lora_presets.offered(backend.model(local_only=True))
    except EngineError:  # nobody knows yet what would fit
        return {}
    return {preset: lora_presets.absent(preset) for preset in fitting.values()}


def joins(page: Page) -> None:
    """Attach what fills the stack."""
    import ui

    panel = page.loras
    outputs = [panel.stack, panel.line]
    panel.drop.upload(on_drop, [panel.drop, panel.stack], [*outputs, panel.drop], **QUIET, **READ_QUEUE)
    for key, button in panel.presets.items():
        button.click(chosen(key), panel.stack, outputs, **QUIET, **READ_QUEUE)
    panel.stack.change(None, panel.stack, panel.panel, js=ui.counted(), **QUIET)


def on_drop(paths: list[str], stack: Any) -> tuple[dict[str, Any], str, None]:
    """The stack with what was dropped, and what is wrong with the rest."""
    import lora_panel

    rows, wrong = lora_panel.rows(stack), []
    configs, weights = ([p for p in paths if p.lower().endswith(".json") is told] for told in (True, False))
    if configs and (len(configs), len(weights)) != (1, 1):
        wrong, weights = [f"{CONFIG} belongs to one LoRA: add the two together, and nothing else."], []
    for path in weights:
        try:
            files = {"file": path} | ({"config": configs[0]} if configs else {})
            lora = lora_stack.admit(path, backend.model(), files.get("config"))
            rows = added(rows, lora, {name: {"path": file} for name, file in files.items()})
        except StudioError as error:
            wrong.append(str(error))
    return lora_panel.stacked(rows), cards.refusal(LoraError(" ".join(wrong)), cards.DROPPED) if wrong else "", None


def chosen(key: str) -> Callable[[Any], tuple[dict[str, Any], str]]:
    """A preset's button: one press puts it on the stack, the next takes it off."""

    def on_press(stack: Any) -> tuple[dict[str, Any], str]:
        import lora_panel

        rows = lora_panel.rows(stack)
        others = [row for row in rows if row["source"] != {"preset": key}]
        try:
            line, source = "", {"preset": key}
            rows = others if len(others) < len(rows) else added(rows, lora_presets.admit(key, backend.model()), source)
        except StudioError as error:
            line = cards.refusal(error, cards.DROPPED)
        return lora_panel.stacked(rows), line

    on_press.__name__ = f"on_{key.replace('-', '_')}"
    return on_press


def added(rows: list[dict[str, Any]], lora: Lora, source: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with one more. Raises LoraError for one that is there already, and for one too many."""
    import lora_panel

    if any(row["sha256"] == lora.sha256 for row in rows):
        raise LoraError(f"{lora.name} is in the stack already.", "Raise its strength instead.")
    if len(rows) >= LORAS_MAX:
        raise LoraError(f"{lora.name} is one too many: {LORAS_MAX} LoRAs are the limit.", "Remove another first.")
    return [*rows, lora_panel.row_of(lora, source, fields_of(Stacked)["strength"].default)]
