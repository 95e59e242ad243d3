"""A stack of LoRAs in a request: what it may hold, what is said of it, and the model it has to fit."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from asking import ask

import api
import backend
import checkpoints
import lora_layouts
import modes
from errors import EngineMissing, InputError, KnobError, LoraError
from random_checkpoint import XL_SFT
from remakes import MODES
from settings import CHECKPOINTS, Checkpoint
from song import Generate, recipe
from sound import Lora

LORA = Lora("/private/a.safetensors", "warm tape", "ab" * 32, 1234, 8, {"layers.0.mlp.up_proj": 2.0})
OTHER = replace(LORA, name="choir", sha256="cd" * 32)
LIMITS = "LoRAs must be up to 8 .safetensors files, each with a strength."


def refused(loras: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        ask(loras=loras)
    return caught.value


def test_a_stack_keeps_its_order_and_its_strengths() -> None:
    stack = ask(
        loras=[{"lora": OTHER, "strength": 1.5}, {"lora": LORA}, {"lora": replace(LORA, sha256="ef"), "strength": 0}]
    ).loras
    assert [(s.lora.name, s.strength) for s in stack] == [("choir", 1.5), ("warm tape", 0.95), ("warm tape", 0)]
    for nothing in (None, "", (), []):
        assert ask(loras=nothing).loras == ()


@pytest.mark.parametrize(
    ("strength", "shown"),
    [(1.51, "1.51"), (-0.01, "-0.01"), (float("nan"), "nan"), (float("inf"), "inf"), (None, "empty"), (True, "True"), ("x", "'x'")],
)  # fmt: skip
def test_a_strength_is_0_to_1_5_and_named_when_it_is_not(strength: Any, shown: str) -> None:
    """Row L11 of the faults."""
    error = refused([{"lora": OTHER}, {"lora": LORA, "strength": strength}])
    assert isinstance(error, KnobError)
    assert str(error) == f"Strength of LoRA 2 must be a number from 0 to 1.5; it is {shown}."


NO_STACKS: dict[str, Any] = {
    "a number": 7,
    "a path": "a.safetensors",
    "paths": ["a.safetensors"],
    "empty entries": [{}],
    "no LoRA": [{"lora": None}],
    "a made up LoRA": [{"lora": {"path": "/etc"}}],
    "an unknown word": [{"lora": LORA, "x": 1}],
    "one entry": {"lora": LORA},
    "nine": [{"lora": replace(LORA, sha256=str(n))} for n in range(9)],
}


@pytest.mark.parametrize("loras", NO_STACKS.values(), ids=NO_STACKS)
def test_what_is_no_stack_is_refused(loras: Any) -> None:
    error = refused(loras)
    assert isinstance(error, LoraError) and str(error) == LIMITS


def test_eight_are_the_limit() -> None:
    assert len(ask(loras=[{"lora": replace(LORA, sha256=str(n))} for n in range(8)]).loras) == 8


def test_the_same_file_twice_is_refused_by_its_hash() -> None:
    twice = [{"lora": LORA, "strength": 0.5}, {"lora": replace(LORA, path="/b", name="tape 2")}]
    assert str(refused(twice)) == "tape 2 is in the stack already, as warm tape. Raise its strength instead."
    assert str(refused([{"lora": LORA}] * 2)) == "warm tape is in the stack twice. Raise its strength instead."


@pytest.mark.parametrize("mode", MODES)
def test_the_recipe_names_each_lora_and_no_path(mode: type) -> None:
    told = recipe(
        ask(loras=[{"lora": LORA, "strength": 0.5}, {"lora": replace(OTHER, preset="choir", alpha="config")}])
    )
    first, second = json.loads(json.dumps(told))["loras"]
    assert first == {
        "name": "warm tape",
        "sha256": "ab" * 32,
        "bytes": 1234,
        "rank": 8,
        "modules": 1,
        "alpha": "unknown",
        "scale": [2.0],
        "strength": 0.5,
    }
    assert (second["preset"], second["alpha"], second["strength"]) == ("choir", "config", 0.95)
    assert "private" not in json.dumps(told)


def test_a_key_is_the_same_for_the_same_weights_at_the_same_scales() -> None:
    assert LORA.key == replace(LORA, path="/elsewhere", name="other").key
    assert len({LORA.key, OTHER.key, replace(LORA, scales={"layers.0.mlp.up_proj": 1.0}).key}) == 3
    assert "." not in LORA.key and pickle.loads(pickle.dumps(LORA)).key == LORA.key


def test_a_song_with_loras_asks_for_more_gpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "1")
    plain, stacked = (backend.gpu_seconds(ask(loras=loras)) for loras in ([], [{"lora": LORA}, {"lora": OTHER}]))
    assert stacked > plain


@pytest.mark.parametrize(("key", "name"), [("xl-sft", "ACE-Step 1.5 XL SFT"), ("xl-turbo", "ACE-Step 1.5 XL Turbo")])
def test_what_fits_is_known_before_the_weights_are_there(monkeypatch: pytest.MonkeyPatch, key: str, name: str) -> None:
    monkeypatch.setenv("ACE_MODEL", key)
    model = backend.model()
    assert (model.name, model.width) == (name, 2560)
    assert model.targets == lora_layouts.targets(XL_SFT["transformer"])


def test_the_loaded_engine_says_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")
    assert backend.model().width == 288
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    assert backend.model().width == 32


@pytest.mark.parametrize("local_only", [True, False])
def test_a_checkpoint_that_nobody_has_cannot_say(
    local_only: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    row = Checkpoint("mine", "Mine", "someone/mine", "Mine.", revision="a" * 40)
    with pytest.raises(EngineMissing, match="someone/mine, could not be loaded"):
        checkpoints.transformer_config(row, local_only)
    with pytest.raises(EngineMissing, match="incomplete or damaged"):
        checkpoints.transformer_config(replace(row, source=str(tmp_path)))


def test_a_checkpoint_of_the_hub_is_asked_for_its_configuration_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "models--someone--mine" / "snapshots" / ("a" * 40) / "transformer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(tiny.TINY["transformer"]))
    row = Checkpoint("mine", "Mine", "someone/mine", "Mine.", revision="a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert checkpoints.transformer_config(row, local_only=True) == tiny.TINY["transformer"]


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A LoRA for the demo model in the upload folder, and one outside."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "gradio").mkdir()
    config = checkpoints.transformer_config(CHECKPOINTS["demo"])
    return {name: tiny.lora(tmp_path / name / "warm.safetensors", config=config) for name in ("gradio", ".")}


def test_a_request_takes_a_lora_from_the_upload_folder_alone(upload: dict[str, str]) -> None:
    entry = {"file": {"path": upload["gradio"]}, "strength": 0.5}
    asked = api.uploads(Generate, {"loras": [entry]})
    assert asked == {"loras": [{"file": upload["gradio"], "strength": 0.5}]}
    (stacked,) = modes.ask(Generate, {"prompt": "rain", **asked}).loras
    assert (stacked.lora.name, stacked.lora.rank, stacked.strength) == ("warm", 2, 0.5)
    for path in (upload["."], "/etc/passwd", 7):
        for name in ("file", "config"):
            with pytest.raises(LoraError, match="must be an uploaded file or a preset"):
                api.uploads(Generate, {"loras": [entry | {name: {"path": path}}]})
    with pytest.raises(LoraError, match="must be an uploaded file or a preset"):
        api.uploads(Generate, {"loras": [{"file": upload["gradio"]}]})


def test_what_is_no_stack_is_left_to_the_request(upload: dict[str, str]) -> None:
    for junk in (7, "a.safetensors", ["a"], {"file": 1}):
        assert api.uploads(Generate, {"loras": junk}) == {"loras": junk}
        with pytest.raises(LoraError, match=LIMITS[:20]):
            modes.ask(Generate, {"prompt": "rain", "loras": junk})
