"""The promise of the recipe: a song that is written, dropped and asked for again is the same file, byte for byte.

In every mode, with LoRAs and with a plan; and every format that it was exported to.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import tiny_planner

import backend
import modes
import restoring
import settings
from afters import Export
from formats import FORMATS
from plans import CODE_COUNT
from remakes import MODES, Cover, Edit, Extend
from song import Generate, SongRequest
from sound import Files, Take

one_thread = tiny_planner.one_thread
WORDS = "[verse]\nla la la\n\n[chorus]\n“oh” & é 爱"
KNOBS = {"prompt": "slow piano, “late”", "seed": -1, "inference_steps": 8, "guidance_scale": 2.5, "lm_top_k": 3}
KNOBS |= {"infer_method": "sde", "cfg_interval_start": 0.1, "bpm": 93, "keyscale": "Db major", "vocal_language": "fr"}
ASKED: dict[type[SongRequest], dict[str, Any]] = {
    Generate: {"lyrics": WORDS, "duration_s": 10.2, "retakes": [[-1, 0.3]], "loras": True},
    Cover: {"source_audio": "chord", "reference_audio": "beat", "lyrics": WORDS, "cover_strength": 0.5},
    Extend: {"source_audio": "beat", "extra_duration_s": 5, "crossfade_s": 0.3, "side": "before"},
    Edit: {"source_audio": "chord", "regions": [[0.5, 1.1], [1.3, 1.5]], "source_lyrics": WORDS, "target_lyrics": "ah"},
}
AFTER = {"title": "Night / “One”", "fade_in_s": 0.5, "fade_out_s": 1, "target_lufs": "-16"}


@pytest.fixture(autouse=True)
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    real = settings.read
    own = {"scratch": tmp_path / "scratch", "outbox": tmp_path / "outbox"}
    monkeypatch.setattr(modes, "read", lambda: replace(real(), **own))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the songs are made of: two recordings and a LoRA."""
    folder, t = tmp_path_factory.mktemp("files"), np.arange(2 * 44_100) / 44_100
    soundfile.write(folder / "chord.mp3", 0.3 * np.sin(2 * np.pi * 220 * t), 44_100)
    soundfile.write(folder / "beat.wav", 0.4 * np.sin(2 * np.pi * 90 * t) * (t % 0.5 < 0.2), 44_100)
    return {
        "chord": str(folder / "chord.mp3"),
        "beat": str(folder / "beat.wav"),
        "lora": tiny.lora(folder / "lora.safetensors"),
    }


def sung(mode: type[SongRequest], values: dict[str, Any]) -> Take:
    *_, take = modes.run(modes.SONGS[mode], values)
    return take


def asked(mode: type[SongRequest], files: dict[str, str]) -> dict[str, Any]:
    values = {**KNOBS, **ASKED[mode]}
    values |= {name: files[values[name]] for name in ("source_audio", "reference_audio") if name in values}
    return values | ({"loras": [{"file": files["lora"], "strength": 0.7}]} if values.get("loras") else {})


def dropped(path: str, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file restores, with the recordings and LoRAs added again; and how it was exported."""
    found = restoring.restore(path, {mode: modes.defaults(mode) for mode in MODES})
    added = {name: values[name] for name in found.recipe.needs}
    if found.recipe.loras:
        (lora,) = found.recipe.loras
        added["loras"] = [{"file": values["loras"][0]["file"], "strength": lora["strength"], "sha256": lora["sha256"]}]
    assert found.recipe.needs.keys() == {name for name in ("source_audio", "reference_audio") if values.get(name)}
    return {**found.controls, **added}, dict(found.recipe.after)


def exported(take: Take, **values: Any) -> str:
    *_, made = modes.run(modes.after(Export, take), values)
    assert isinstance(made, Files)
    return next(iter(made.paths.values()))


def same(one: str, other: str) -> bool:
    return one != other and Path(one).read_bytes() == Path(other).read_bytes()


@pytest.mark.parametrize("mode", MODES)
def test_a_song_is_the_same_again_from_a_file_of_any_format(mode: type[SongRequest], files: dict[str, str]) -> None:
    values = asked(mode, files)
    first = sung(mode, values)
    restored, after = dropped(first.path, values)
    again = sung(mode, restored)
    assert after == {} and same(first.path, again.path)
    assert again.recipe == first.recipe
    for form in FORMATS:
        path = exported(first, format=form, **AFTER)
        restored_too, after = dropped(path, values)
        assert restored_too == restored, "so it is the same song again"
        assert after == {**AFTER, "format": form, "fade_out_s": 1.0, "sample_rate": "48000"}
        assert same(path, exported(again, **after))


def test_a_restored_song_with_another_value_is_another(files: dict[str, str]) -> None:
    values = asked(Generate, files)
    first = sung(Generate, values)
    restored, _ = dropped(first.path, values)
    other = sung(Generate, {**restored, "bpm": 94})
    assert not same(first.path, other.path)


def test_a_planned_song_is_the_same_again_without_planning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACE_PLANNER", str(tiny_planner.saved(tmp_path / "tiny", CODE_COUNT)))
    monkeypatch.setattr(backend, "_planner", None)
    values = {"prompt": "slow piano", "lyrics": "la", "duration_s": 10, "inference_steps": 8, "seed": 5}
    first = sung(Generate, values)
    assert first.metadata["planner"]["chosen"], "the planner had something to say"
    restored, _ = dropped(first.path, {})
    assert restored["plan"] == first.metadata["planner"]["plan"]
    monkeypatch.setattr(backend, "get_planner", None)  # nobody may ask for it
    again = sung(Generate, restored)
    assert same(first.path, again.path)
    third, _ = dropped(again.path, {})
    assert third == restored


def test_a_take_of_a_take_names_its_parent_and_comes_back(files: dict[str, str]) -> None:
    parent = sung(Extend, asked(Extend, files))
    mp3 = exported(parent, format="mp3")
    values = {**KNOBS, "source_audio": mp3, "seed": 4}
    child = sung(Cover, values)
    assert child.recipe["parents"] == {"source_audio": parent.recipe["take"]["sha256"]}
    assert child.metadata["parents"] == child.recipe["parents"]
    restored, _ = dropped(child.path, values)
    assert same(child.path, sung(Cover, restored).path)
