"""Demucs: which weights are let in, what is told while it works, that Stop ends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_stems

import stems
from errors import EngineMissing, Stopped
from settings import SettingError
from sound import SAMPLE_RATE, AudioClip, Progress

SONG = np.random.default_rng(1).uniform(-0.4, 0.4, (2, 5 * SAMPLE_RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stems.weights(tmp_path_factory.mktemp("stems") / "tiny")


@pytest.fixture(scope="module")
def separator(folder: Path) -> stems.Separator:
    return stems.load(stems.row_for(str(folder)), "cpu")


def silent(_: Progress) -> None:
    """Nobody listens."""


def test_the_stems_add_up_and_are_named_as_they_are_known(separator: stems.Separator) -> None:
    made = separator.separate(AudioClip(SONG, {}), silent)
    assert tuple(made.samples) == stems.NAMES
    assert all(part.shape == SONG.shape and part.dtype == np.float32 for part in made.samples.values())
    assert np.abs(sum(made.samples.values()) - SONG).max() < 1e-5
    assert made.model["id"] == "tiny" and made.model["device"] == "cpu" and made.timings["total_s"] > 0
    assert len({part.tobytes() for part in made.samples.values()}) == 4


def test_the_rest_is_what_the_four_lack(separator: stems.Separator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives each stem a fifth of what it hears leaves a fifth over: -14 dB."""
    import demucs.apply
    import torch

    def fifths(model: Any, mix: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.stack([mix / 5] * 4, dim=1)

    monkeypatch.setattr(demucs.apply, "apply_model", fifths)
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    made = separator.separate(AudioClip(np.stack([tone, tone / 2]), {}), silent)
    assert made.model["rest_db"] == pytest.approx(-14, abs=0.1)


def test_loud_and_quiet_songs_are_heard_alike(separator: stems.Separator) -> None:
    """The input is standardised: a song at a tenth of the level gives stems at a tenth."""
    loud, quiet = (separator.separate(AudioClip(SONG * np.float32(g), {}), silent).samples for g in (1, 0.1))
    for name in stems.NAMES:
        assert np.allclose(quiet[name], loud[name] * 0.1, atol=1e-4)


def test_progress_goes_chunk_by_chunk_to_the_end(separator: stems.Separator) -> None:
    told: list[Progress] = []
    separator.separate(AudioClip(SONG, {}), told.append)
    steps = [event.step for event in told]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == told[-1].of > 2
    assert {event.phase for event in told} == {"Separating"} and told[-1].left_s == 0


def test_stop_ends_it_within_a_chunk(separator: stems.Separator) -> None:
    told: list[Progress] = []

    def stops(event: Progress) -> None:
        told.append(event)
        if event.step == 1:
            raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        separator.separate(AudioClip(SONG, {}), stops)
    assert told[-1].step == 1
    assert separator.separate(AudioClip(SONG, {}), silent), "the next song works"


def test_silence_and_a_scrap_of_sound_have_stems(separator: stems.Separator) -> None:
    for samples in (np.zeros((2, SAMPLE_RATE), np.float32), SONG[:, :2000]):
        made = separator.separate(AudioClip(samples, {}), silent)
        assert np.abs(sum(made.samples.values()) - samples).max() < 1e-5
        assert np.isfinite(made.model["rest_db"])


@pytest.mark.parametrize("told", [{"klass": "os.system"}, {"klass": "demucs.demucs.Demucs"}, {"structure": "{}"}])
def test_weights_that_name_another_class_are_not_run(told: dict[str, str], tmp_path: Path) -> None:
    folder = tiny_stems.weights(tmp_path / "evil", args=json.dumps(["touch marker"]), **told)
    with pytest.raises(EngineMissing, match=r"^The checkpoint in evil/ is incomplete or damaged"):
        stems.load(stems.row_for(str(folder)), "cpu")
    assert not Path("marker").exists()


def test_weights_of_another_hash_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(folder / "tiny.safetensors"))
    with pytest.raises(
        EngineMissing, match=r"^The weights of the stems model htdemucs are damaged\. Fetch them again: "
    ):
        stems.load(stems.ROWS["htdemucs"], "cpu")


def test_the_weights_are_pinned_by_commit_and_hash() -> None:
    row = stems.ROWS["htdemucs"]
    assert len(row.revision) == 40 and len(row.sha256) == 64


def test_a_setting_that_names_nothing_is_one_sentence() -> None:
    assert stems.row_for("").key == "htdemucs"
    with pytest.raises(
        SettingError, match=r"^ACE_STEMS_MODEL must be one of htdemucs, random:htdemucs or a folder; it is 'x/y'"
    ):
        stems.row_for("x/y")


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match="incomplete or damaged"):
        stems.load(stems.row_for(str(tmp_path)), "cpu")


def test_the_random_model_has_the_true_architecture() -> None:
    import torch

    with torch.device("meta"):
        size = sum(p.numel() for p in stems._random().parameters())
    assert size == 41_984_456


@pytest.mark.gpu
def test_a_gpu_gives_the_stems_of_the_cpu() -> None:
    import checkpoints

    on = checkpoints.device()
    assert on != "cpu", "there is no GPU here"
    row = stems.ROWS["random:htdemucs"]
    here, there = (stems.load(row, device).separate(AudioClip(SONG, {}), silent).samples for device in ("cpu", on))
    assert all(np.abs(here[name] - there[name]).max() < 0.01 for name in stems.NAMES)
