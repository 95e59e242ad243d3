"""How files and presets come onto the page's stack, and what is said of those that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

import backend
import lora_panel
import lora_presets
import stacking
from errors import EngineMissing
from fields import LORAS_MAX
from lora_presets import Preset
from lora_scales import CONFIG


@pytest.fixture(autouse=True)
def tiny_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_engine", tiny.engine())


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Preset:
    """A preset for the tiny model, beside one for XL."""
    monkeypatch.setattr(lora_presets, "FOLDER", tmp_path)
    (tmp_path / "warm-tape").mkdir()
    tiny.lora(tmp_path / "warm-tape" / lora_presets.WEIGHTS, seed=9)
    mine = Preset("warm-tape", "Warm tape", 32, "any prompt, on tape.", config=False)
    monkeypatch.setattr(lora_presets, "manifest", lambda: (mine, Preset("big", "Big", 2560, "for XL.")))
    return mine


def drop(*paths: str, stack: Any = None) -> tuple[list[dict[str, Any]], str]:
    value, line, cleared = stacking.on_drop(list(paths), stack)
    assert cleared is None, "the drop zone is free again"
    return lora_panel.rows(value), line


def test_files_are_stacked_in_order_with_what_is_known_of_them(tmp_path: Path) -> None:
    first, second = (tiny.lora(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("choir", "tape")))
    rows, line = drop(first)
    assert line == "" and rows[0]["name"] == "choir" and rows[0]["note"] == lora_panel.NO_ALPHA
    rows, line = drop(second, stack=lora_panel.stacked(rows))
    assert [(row["name"], row["rank"], row["modules"], row["strength"]) for row in rows] == [
        ("choir", 2, 22, 0.95),
        ("tape", 2, 22, 0.95),
    ]
    assert rows[1]["source"] == {"file": {"path": second}}


def test_a_config_goes_with_one_lora_alone(tmp_path: Path) -> None:
    config, lora = tmp_path / CONFIG, tiny.lora(tmp_path / "choir.safetensors")
    config.write_text(json.dumps({"r": 2, "lora_alpha": 4}))
    (row,), line = drop(str(config), lora)
    assert line == row["note"] == "" and row["source"]["config"] == {"path": str(config)}
    for paths in (
        [str(config)],
        [str(config), lora, tiny.lora(tmp_path / "b.safetensors", 1)],
        [str(config)] * 2 + [lora],
    ):
        rows, line = drop(*paths)
        assert rows == [] and f"{CONFIG} belongs to one LoRA: add the two together, and nothing else." in line


def test_what_cannot_be_used_is_said_and_the_rest_is_stacked(tmp_path: Path) -> None:
    good, same = tiny.lora(tmp_path / "good.safetensors"), tiny.lora(tmp_path / "same.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"<html>")
    (row,), line = drop(str(tmp_path / "bad.safetensors"), good, same)
    assert row["name"] == "good" and 'role="alert"' in line
    assert "bad cannot be used: " in line and "same is in the stack already. Raise its strength instead." in line
    assert str(tmp_path) not in line


def test_one_too_many_is_refused(tmp_path: Path) -> None:
    paths = [tiny.lora(tmp_path / f"{n}.safetensors", n) for n in range(LORAS_MAX + 1)]
    rows, line = drop(*paths)
    assert len(rows) == LORAS_MAX and f"{LORAS_MAX} is one too many: {LORAS_MAX} LoRAs are the limit." in line


def test_a_preset_goes_on_with_one_press_and_off_with_the_next(bundled: Preset, tmp_path: Path) -> None:
    press = stacking.chosen("warm-tape")
    rows, _ = drop(tiny.lora(tmp_path / "choir.safetensors"))
    stack, line = press(lora_panel.stacked(rows))
    assert line == "" and [row["name"] for row in lora_panel.rows(stack)] == ["choir", "Warm tape"]
    assert lora_panel.picked(stack)[1]["preset"] == "warm-tape"
    stack, line = press(stack)
    assert line == "" and [row["name"] for row in lora_panel.rows(stack)] == ["choir"]


def test_the_file_of_a_preset_is_known_by_its_hash(bundled: Preset, tmp_path: Path) -> None:
    rows, _ = drop(tiny.lora(tmp_path / "mine.safetensors", seed=9))
    stack, line = stacking.chosen("warm-tape")(lora_panel.stacked(rows))
    assert lora_panel.rows(stack) == rows and "Warm tape is in the stack already." in line


def test_a_preset_that_cannot_be_had_says_so_and_leaves_the_stack(bundled: Preset, tmp_path: Path) -> None:
    (tmp_path / "warm-tape" / lora_presets.WEIGHTS).write_bytes(b"")
    stack, line = stacking.chosen("warm-tape")(None)
    assert lora_panel.rows(stack) == [] and "Warm tape cannot be used" in line


def test_only_presets_that_fit_are_offered(bundled: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stacking.offered() == {bundled: ""}
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setenv("ACE_MODEL", "xl-sft")
    assert [preset.key for preset in stacking.offered()] == ["big"]


def test_a_model_that_nobody_has_yet_is_offered_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setenv("ACE_MODEL", "someone/mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EngineMissing):
        backend.model(local_only=True)
    assert stacking.offered() == {}
