"""A file back to its controls: what this studio restores of it, and what it says of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import audio_io
import finish
import lora_presets
import modes
import recipes
import restoring
from errors import AudioError, InputError, KnobError, LoraError
from formats import FORMATS
from remakes import MODES, Cover
from song import Generate, SongRequest
from sound import SAMPLE_RATE, AudioClip, Lora, Sound

HELD = audio_io.rounded(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 2 * SAMPLE_RATE)).astype(np.float32))
CLIP = AudioClip(HELD, {"sha256": "0" * 64, "format": "MP3", "sample_rate": 44_100, "channels": 1})
HERE = {"key": "demo", "id": "demo", "revision": None, "device": "cpu", "dtype": "float32"}


@pytest.fixture(autouse=True)
def demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")


@pytest.fixture
def given() -> dict[type[SongRequest], dict[str, Any]]:
    return {mode: modes.defaults(mode) for mode in MODES}


def recipe(mode: type[SongRequest] = Generate, **own: Any) -> dict[str, Any]:
    asked = {"prompt": "calm piano", "seed": 7, **({"source_audio": CLIP} if mode is not Generate else {}), **own}
    return recipes.of(mode.parse(asked), Sound(HELD, SAMPLE_RATE, {}, HERE), HELD)


def song(path: Path, held: dict[str, Any], form: str = "flac") -> str:
    finish.write(path, HELD, held, FORMATS[form])
    return str(path)


def test_a_song_of_this_studio_comes_back_without_a_word(given: Any, tmp_path: Path) -> None:
    for form in FORMATS.values():
        found = restoring.restore(song(tmp_path / f"a{form.suffix}", recipe(), form.key), given)
        assert found.told == ()
        assert found.answer()["mode"] == "generate" and found.controls["prompt"] == "calm piano"
        assert found.controls.keys() == given[Generate].keys()


def test_the_answer_is_json_and_asks_for_the_same(given: Any, tmp_path: Path) -> None:
    found = restoring.restore(song(tmp_path / "a.flac", recipe(bpm=97, retakes=[[3, 0.5]])), given)
    answer = json.loads(json.dumps(found.answer()))
    assert recipes.of(Generate.parse(answer["controls"]), Sound(HELD, SAMPLE_RATE, {}, HERE), HELD) == recipe(
        bpm=97, retakes=[[3, 0.5]]
    )
    assert answer["not_restored"] == [] and answer["needs"] == {}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"id": "ACE-Step/acestep-v15-xl-sft-diffusers", "revision": "4bf7b60a63b27144"}, "Made with ACE-Step/acestep-v15-xl-sft-diffusers at 4bf7b60a63b2; here sings Demo model, so it will be another song."),
        ({"id": None}, "Made with a model that its recipe does not name; here sings Demo model, so it will be another song."),
        ({"device": "cuda", "dtype": "bfloat16"}, "Made on cuda in bfloat16; here it is cpu in float32: alike, not bit for bit."),
    ],
)  # fmt: skip
def test_another_model_or_machine_is_told(model: dict[str, Any], said: str, given: Any, tmp_path: Path) -> None:
    held = recipe() | {"model": HERE | model}
    assert restoring.restore(song(tmp_path / "a.flac", held), given).told == (said,)


def test_recordings_are_asked_for_by_what_they_were(given: Any, tmp_path: Path) -> None:
    found = restoring.restore(song(tmp_path / "a.flac", recipe(Cover, reference_audio=CLIP)), given)
    assert found.told == (
        "Song to cover: add the MP3 of 2.00 s again; recordings are not kept in a recipe.",
        "Timbre reference: add the MP3 of 2.00 s again; recordings are not kept in a recipe.",
    )
    assert found.answer()["needs"]["source_audio"]["sha256"] == CLIP.facts["sha256"]


def test_a_file_that_was_cut_since_is_told(given: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    finish.write(path, HELD[:, :SAMPLE_RATE], recipe(), FORMATS["flac"])
    told = restoring.restore(str(path), given).told
    assert told == ("This file has 1.00 s, its recipe makes 2.00 s: it was changed since.",)


@pytest.mark.parametrize("gone", [True, False])
def test_a_preset_that_changed_or_is_gone_is_missing(
    gone: bool, given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = Lora("x.safetensors", "Tape", "a" * 64, 10, 2, {"layer": 1.0}, preset="tape")
    held = recipe(loras=[{"lora": lora, "strength": 0.5}])

    def admit(key: str, _: Any) -> Lora:
        if gone:
            raise LoraError("Tape is not on this machine.", "Your other LoRAs work.")
        return Lora("y.safetensors", "Tape", "b" * 64, 10, 2, {"layer": 1.0}, preset=key)

    monkeypatch.setattr(lora_presets, "admit", admit)
    found = restoring.restore(song(tmp_path / "a.flac", held), given)
    assert found.controls["loras"] == [] and len(found.told) == 1 and found.told[0].startswith("LoRA Tape")
    mine = restoring.restore(song(tmp_path / "b.flac", held), given, frozenset(["a" * 64]))
    assert mine.told == () and mine.loras[0][1] is None, "what is in the stack already needs no preset"


def test_a_preset_comes_back_by_its_key(given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora = Lora("x.safetensors", "Tape", "a" * 64, 10, 2, {"layer": 1.0}, preset="tape")
    monkeypatch.setattr(lora_presets, "admit", lambda key, _: lora)
    found = restoring.restore(song(tmp_path / "a.flac", recipe(loras=[{"lora": lora, "strength": 0.5}])), given)
    assert found.controls["loras"] == [{"preset": "tape", "strength": 0.5, "sha256": "a" * 64}] and found.told == ()


def test_a_lora_of_ones_own_has_to_be_added_again(given: Any, tmp_path: Path) -> None:
    held = recipe(loras=[{"lora": Lora("x", "Mine", "a" * 64, 10, 2, {"layer": 1.0}), "strength": 0.5}])
    told = restoring.restore(song(tmp_path / "a.flac", held), given).told
    assert told == ("LoRA Mine (aaaaaaaa) is missing: add its file to the stack again.",)


def test_a_song_without_a_recipe_is_told(given: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", HELD.T, SAMPLE_RATE)
    with pytest.raises(KnobError, match=r"^This file holds no recipe\. Drop a song that this studio made"):
        restoring.restore(str(tmp_path / "a.wav"), given)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"RIFF\xff\xff\xff\x7fWAVE", b"fLaC" + b"\xff" * 40, b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f"]
)
def test_damaged_files_are_one_sentence(content: bytes, given: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        restoring.restore(str(path), given)
    assert str(path) not in str(refused.value)


def test_missing_files_and_links_are_refused(given: Any, tmp_path: Path) -> None:
    (tmp_path / "link.flac").symlink_to(song(tmp_path / "a.flac", recipe()))
    for path in (tmp_path / "gone.flac", tmp_path / "link.flac", tmp_path):
        with pytest.raises(AudioError):
            restoring.restore(str(path), given)


def test_a_recording_that_is_a_take_says_which(tmp_path: Path) -> None:
    held = recipe()
    for form in ("wav24", "mp3", "ogg"):
        path = song(tmp_path / f"a{FORMATS[form].suffix}", held, form)
        clip = recipes.signed(audio_io.admit(path), path)
        assert clip.file["take"] == held["take"]["sha256"] and clip.facts["file"]["take"] == clip.file["take"]
    soundfile.write(tmp_path / "b.wav", HELD.T, SAMPLE_RATE)
    plain = audio_io.admit(tmp_path / "b.wav")
    assert recipes.signed(plain, tmp_path / "b.wav") is plain
    forged = song(tmp_path / "c.flac", {**held, "take": {"sha256": "<b>"}})
    assert "take" not in recipes.signed(audio_io.admit(forged), forged).file


def test_a_take_made_of_a_take_names_its_parent(tmp_path: Path, given: Any) -> None:
    first = song(tmp_path / "a.flac", recipe())
    request = modes.ask(Cover, {"source_audio": first, "prompt": "jazz"})
    child = recipes.of(request, Sound(HELD, SAMPLE_RATE, {}, HERE), HELD)
    assert child["parents"] == {"source_audio": recipe()["take"]["sha256"]}
