"""A stack of LoRAs as it is asked for: files, presets, recipes, junk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lora_files import chosen, factors, tiny_model, write

import lora_door
import lora_presets
from errors import KnobError, LoraError
from fields import LORAS_MAX
from lora_presets import Preset
from lora_stack import NAME_LIMIT
from song import Generate, recipe
from sound import Lora

MODEL = tiny_model()


@pytest.fixture
def file(tmp_path: Path) -> dict[str, str]:
    """A LoRA of rank 4 and alpha 8 as PEFT leaves it: `file` and `config`."""
    path, config = write(tmp_path / "warm tape.safetensors", "peft", factors(MODEL, chosen(MODEL, "q and k")), 8)
    return {"file": str(path), "config": str(config)}


@pytest.fixture
def preset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lora:
    """The one preset of a studio of this test's own, for the tiny model."""
    (tmp_path / "presets" / "glow").mkdir(parents=True)
    write(tmp_path / "presets" / "glow" / lora_presets.WEIGHTS, "peft", factors(MODEL, chosen(MODEL, "MLP"), seed=1), 4)
    monkeypatch.setattr(lora_presets, "FOLDER", tmp_path / "presets")
    monkeypatch.setattr(lora_presets, "manifest", lambda: (Preset("glow", "Glow", MODEL.width, "Glows."),))
    return lora_presets.admit("glow", MODEL)


def refused(*entries: Any) -> str:
    with pytest.raises(LoraError) as error:
        lora_door.admitted(entries, MODEL)
    return str(error.value)


def test_a_file_is_let_in_with_or_without_its_configuration(file: dict[str, str]) -> None:
    alone, both = lora_door.admitted(({"file": file["file"]}, {**file, "strength": 0.4}), MODEL)
    assert alone.keys() == {"lora"} and both.keys() == {"lora", "strength"} and both["strength"] == 0.4
    assert (alone["lora"].alpha, set(alone["lora"].scales.values())) == ("", {1.0})
    assert (both["lora"].alpha, set(both["lora"].scales.values())) == ("config", {2.0})
    assert alone["lora"].name == both["lora"].name == "warm tape"
    request = Generate.parse({"prompt": "rain", "loras": [both]})
    assert [(stacked.lora, stacked.strength) for stacked in request.loras] == [(both["lora"], 0.4)]
    (empty,) = lora_door.admitted([{"file": file["file"], "config": None, "preset": "", "sha256": None}], MODEL)
    assert empty["lora"].key == alone["lora"].key


def test_a_preset_is_let_in_by_its_key(preset: Lora) -> None:
    (entry,) = lora_door.admitted([{"preset": "glow", "strength": 1.5}], MODEL)
    assert entry["lora"].facts == preset.facts and entry["strength"] == 1.5
    assert entry["lora"].preset == "glow" and entry["lora"].name == "Glow"
    assert "'brass' is no preset for the tiny model; there are: glow." in refused({"preset": "brass"})


def test_a_recipe_with_its_files_is_asked_for_again(file: dict[str, str], preset: Lora) -> None:
    asked = lora_door.admitted([{**file, "strength": 0.3}, {"preset": "glow"}], MODEL)
    first = Generate.parse({"prompt": "rain", "seed": 1, "loras": asked})
    told = json.loads(json.dumps(recipe(first)))["loras"]
    assert all(name in lora_door.ENTRY for entry in told for name in entry)  # nothing of it is unknown at the door
    again = Generate.parse({"prompt": "rain", "seed": 1, "loras": lora_door.admitted([told[0] | file, told[1]], MODEL)})
    assert [(s.lora.key, s.strength) for s in again.loras] == [(s.lora.key, s.strength) for s in first.loras]


def test_a_recipe_without_its_file_says_which_is_missing(file: dict[str, str]) -> None:
    (entry,) = lora_door.admitted([file], MODEL)
    assert refused(entry["lora"].facts) == "The file of warm tape is missing. Add it again."
    assert refused({}) == refused({"file": "", "name": ""}) == "The file of a LoRA is missing. Add it again."
    shown = refused({"name": "\x1b[31mred\u202e\x00 " + "x" * 999})
    assert shown.startswith("The file of red x") and len(shown) == len("The file of  is missing. Add it again.") + 80
    assert NAME_LIMIT == 80


def test_another_file_than_the_recipes_is_refused(file: dict[str, str], preset: Lora) -> None:
    for entry, name in ((file, "warm tape"), ({"preset": "glow"}, "Glow")):
        for wrong in ("0" * 64, preset.sha256.upper(), "", 7, ["x"]):
            assert refused({**entry, "sha256": wrong}) == (
                f"{name} is another file than the one that was asked for. Their hashes differ."
            )
    assert "another file" in refused({**file, "sha256": preset.sha256})


@pytest.mark.parametrize(
    ("key", "shown"), [("weight", "'weight'"), ("lora", "'lora'"), (3, "'3'"), ("k" * 999, repr("k" * 40))]
)
def test_unknown_keys_are_named(file: dict[str, str], key: Any, shown: str) -> None:
    sentence = f"{shown} is nothing that a LoRA has. It has file, config, preset, strength."
    assert refused({**file, key: 1}) == refused({**file}, {key: 1}) == sentence


def test_what_the_reader_of_files_says_comes_through(tmp_path: Path, file: dict[str, str]) -> None:
    assert refused({"file": str(tmp_path / "gone.safetensors")}) == (
        "gone cannot be used: the upload has expired. Please add it again."
    )
    other = tmp_path / "other.json"
    other.write_text('{"r": 16, "lora_alpha": 16}')
    assert "another LoRA's" in refused({**file, "config": str(other)})
    assert str(tmp_path) not in refused({**file, "config": str(tmp_path / "gone.json")})


JUNK = [
    None,
    "",
    7,
    True,
    "a.safetensors",
    b"x",
    {"file": "a"},
    ["a.safetensors"],
    [{"file": "a"}, 5],
    [None],
    {1},
    [[{}]],
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_what_is_no_stack_is_left_for_the_request_to_refuse(junk: Any) -> None:
    assert lora_door.admitted(junk, MODEL) is junk
    assert lora_door.uploaded(junk, pytest.fail) is junk
    if junk:
        with pytest.raises(LoraError, match="LoRAs must be up to 8"):
            Generate.parse({"prompt": "rain", "loras": junk})


@pytest.mark.parametrize("strength", [-0.1, 1.6, "loud", float("nan"), None, True])
def test_a_strength_goes_through_as_it_is_and_the_request_refuses_it(file: dict[str, str], strength: Any) -> None:
    (entry,) = entries = lora_door.admitted([{**file, "strength": strength}], MODEL)
    assert entry["strength"] is strength
    with pytest.raises(KnobError, match=r"^Strength of LoRA 1 must be a number from 0 to 1\.5"):
        Generate.parse({"prompt": "rain", "loras": entries})


def test_nine_are_one_too_many_and_no_more_of_them_are_read(file: dict[str, str]) -> None:
    missing = {"file": "/nowhere.safetensors"}
    entries = lora_door.admitted([{"file": file["file"]}] * 9 + [missing] * 10**5, MODEL)
    assert len(entries) == LORAS_MAX + 1 == 9
    with pytest.raises(LoraError, match="LoRAs must be up to 8"):
        Generate.parse({"prompt": "rain", "loras": entries})
    assert "expired" in refused(*[{"file": file["file"]}] * 8, missing)


def test_uploads_are_found_by_the_reader_and_nothing_else_is_touched() -> None:
    seen: list[Any] = []

    def read(value: Any) -> str:
        seen.append(value)
        return f"/uploads/{len(seen)}"

    entries = [
        {"file": {"path": "a"}, "config": {"path": "b"}, "strength": 2},
        {"preset": "glow", "file": None, "config": ""},
        {"file": {"path": "c"}, "name": "tape", "odd": 1},
    ]
    assert lora_door.uploaded(entries, read) == [
        {"file": "/uploads/1", "config": "/uploads/2", "strength": 2},
        {"preset": "glow", "file": None, "config": ""},
        {"file": "/uploads/3", "name": "tape", "odd": 1},
    ]
    assert seen == [{"path": "a"}, {"path": "b"}, {"path": "c"}]
    assert entries[0]["file"] == {"path": "a"}  # what was asked stays as it is
    assert lora_door.uploaded((), read) == lora_door.admitted((), MODEL) == []

    def nobody(value: Any) -> str:
        raise LoraError("A LoRA must be an uploaded file or a preset.")

    with pytest.raises(LoraError, match="must be an uploaded file"):
        lora_door.uploaded(entries, nobody)
