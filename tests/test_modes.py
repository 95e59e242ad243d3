"""The handlers: values in at the door, a guarded and written take out, the same for page and endpoint.

The endpoints themselves are in test_endpoints.py.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import tiny

import audio_io
import backend
import modes
import recipes
import splice
import tags
from errors import BadOutput, DiskFull, EngineFault, KnobError, StudioError
from remakes import MODES, Cover, Edit, Extend
from settings import CHECKPOINTS, TURBO_LACKS
from song import KNOBS, Generate, SongRequest, controls
from sound import Files, Progress, Sound, Take, sha256

WORDS = {"prompt": "slow piano", "duration_s": 10, "seed": 3, "inference_steps": 8}


@pytest.fixture(autouse=True)
def tiny_studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tiny engine behind the real gate, writing below the test's own folder: works in `scratch`, keeps in `gradio`."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(modes, "scratch", lambda: audio_io.scratch(tmp_path / "scratch"))


def outbox(tmp_path: Path) -> Path:
    """Where finished files stay."""
    return tmp_path / "gradio" / "ace-studio"


def sound_of(samples: np.ndarray) -> Sound:
    return Sound(samples.astype(np.float32), 48_000, {"total_s": 1.0}, {"key": "tiny"})


def tone(gain: float = 0.5, seconds: float = 10.0) -> np.ndarray:
    t = np.arange(round(seconds * 48_000)) / 48_000
    return gain * np.stack([np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 330 * t)])


def written(samples: np.ndarray, folder: Path, request: SongRequest | None = None) -> Take:
    """The take of a sound that an engine gave."""
    sound = sound_of(samples)
    request = request or Generate.parse(WORDS)
    return modes.take(request, sound, splice.whole(request, sound.samples, 0), folder)


def test_a_song_is_told_by_step_and_written_with_its_recipe(tmp_path: Path) -> None:
    *told, made = modes.generate({**WORDS, "bpm": 120}, tmp_path)
    assert [e.step for e in told if isinstance(e, Progress) and e.of] == list(range(9))
    info = soundfile.info(made.path)
    assert (info.samplerate, info.channels, info.frames) == (48_000, 2, 480_000)
    recipe = made.metadata
    assert recipe["mode"] == "generate" and recipe["seed"] == 3 and recipe["prompt"] == "slow piano"
    assert len(recipe["advanced"]) == 12 and len(recipe["lm"]) == 9
    assert recipe["advanced"]["bpm"] == 120 and recipe["advanced"]["guidance_scale"] == 3.0  # the demo's own default
    assert recipe["model"] == tiny.engine().describe() and recipe["planner"] is None
    assert {"conditioning_s", "denoise_s", "decode_s", "total_s"} <= recipe["timings"].keys()
    json.dumps(recipe)
    pickle.loads(pickle.dumps(made))


def test_a_song_knows_itself_and_what_became_of_what_was_asked(tmp_path: Path) -> None:
    made = list(modes.generate({**WORDS, "bpm": 120}, tmp_path))[-1]
    own = {"sha256": sha256(audio_io.held(made.path)), "seconds": 10.0, "sample_rate": 48_000, "channels": 2}
    assert made.metadata["take"] == made.recipe["take"] == own
    assert made.metadata["parents"] == made.recipe["parents"] == {}
    assert made.metadata["asked"] == {"bpm": 120, "keyscale": None, "seconds": 10, "by": {"bpm": "asked"}}
    measured = made.metadata["measured"]
    assert measured.keys() == {"bpm", "keyscale", "lufs", "true_peak_db", "seconds"} and measured["seconds"] == 10
    assert tags.read(made.path).recipe == recipes.text(made.recipe), "the file has its recipe with it"


def test_what_the_planner_chose_is_told_as_planned(tmp_path: Path) -> None:
    plan = {"caption": "slow piano", "bpm": 96, "keyscale": "A minor"}
    sound = replace(sound_of(tone()), planner={"name": "the planner", "plan": plan, "chosen": ["bpm", "keyscale"]})
    request = Generate.parse({**WORDS, "bpm": 120})
    asked = modes.take(request, sound, splice.whole(request, sound.samples, 0), tmp_path).metadata["asked"]
    assert asked == {"bpm": 120, "keyscale": "A minor", "seconds": 10, "by": {"bpm": "asked", "keyscale": "planned"}}


def test_a_recipe_fed_back_gives_the_same_bytes(tmp_path: Path) -> None:
    first = list(modes.generate({"prompt": "slow piano", "duration_s": 10, "inference_steps": 8}, tmp_path))[-1]
    again = first.metadata
    values = {name: again[name] for name in ("prompt", "lyrics", "duration_s", "instrumental")}
    second = list(modes.generate({**values, **again["advanced"], **again["lm"]}, tmp_path))[-1]
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert first.path != second.path
    assert first.recipe == second.recipe


def test_two_takes_never_share_a_guessable_name(tmp_path: Path) -> None:
    request = Generate.parse(WORDS)
    names = {Path(written(tone(), tmp_path, request).path).stem for _ in range(3)}
    assert len(names) == 3
    assert all(len(name.rsplit("-", 1)[1]) >= 16 for name in names)  # 64 bits in hex


def test_bad_values_are_refused_before_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(request: Generate) -> Iterator[Progress]:
        raise AssertionError("a GPU second was spent")

    monkeypatch.setattr(backend, "answer", never)
    with pytest.raises(KnobError, match="BPM must be a whole number from 30 to 300"):
        list(modes.generate({**WORDS, "bpm": 7}, tmp_path))


def test_a_loud_take_is_turned_down_and_says_so(tmp_path: Path) -> None:
    made = written(tone(4.0), tmp_path)
    assert made.metadata["audio"]["gain_db"] == pytest.approx(-13.04, abs=0.01)
    assert np.abs(soundfile.read(made.path)[0]).max() == pytest.approx(10 ** (-1 / 20), abs=1e-5)
    assert written(tone(), tmp_path).metadata["audio"]["gain_db"] == 0


def test_a_take_that_sounds_like_noise_says_so(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 480_000))
    made = written(noise, tmp_path)
    assert made.metadata["warnings"] == ["This take sounds like noise. Try a shorter prompt or another seed."]
    assert "sounds like noise" in modes.summary(made)
    assert written(tone(), tmp_path).metadata["warnings"] == []


@pytest.mark.parametrize("samples", [np.full((2, 480_000), np.nan), np.zeros((2, 480_000)), tone(seconds=9)])
def test_unusable_output_leaves_no_file(monkeypatch: pytest.MonkeyPatch, samples: np.ndarray, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "answer", lambda request: iter([sound_of(samples)]))
    with pytest.raises(BadOutput):
        list(modes.generate(WORDS, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_unforeseen_errors_get_an_incident_code() -> None:
    def broken(values: dict, folder: Path) -> Iterator[Progress]:
        yield Progress("Denoising")
        raise ZeroDivisionError("secret path /home/x")

    events = modes.run(broken, WORDS)
    next(events)
    with pytest.raises(EngineFault, match=r"incident [0-9a-f]{8}") as caught:
        next(events)
    assert "secret" not in str(caught.value)


def test_knobs_that_cannot_act_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = {name for name, k in KNOBS.items() if k.group == "5Hz LM"}
    assert modes.unavailable() == dict.fromkeys(lm, "needs the planner")
    monkeypatch.setenv("ACE_MODEL", "xl-turbo")
    turbo = modes.unavailable()
    sketch = {"thinking", "lm_cfg_scale", "lm_negative_prompt"}
    assert turbo.keys() == {"guidance_scale", "cfg_interval_start", "cfg_interval_end", "use_adg"} | sketch
    assert all("no audio tokenizer" in turbo[name] for name in sketch)
    monkeypatch.setenv("ACE_PLANNER", "none")
    assert lm <= modes.unavailable().keys()
    monkeypatch.setenv("ACE_MODEL", "xl-sft")
    monkeypatch.delenv("ACE_PLANNER")
    assert modes.unavailable() == {}


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_defaults_follow_the_checkpoint(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setenv("ACE_MODEL", model)
    expected = {
        "xl-sft": (27, 1.0, 7.0, 30),
        "xl-turbo": (8, 3.0, 1.0, 30),
        "demo": (27, 1.0, 3.0, 10),
        "random:xl-sft": (27, 1.0, 7.0, 30),
    }[model]
    given = modes.defaults()
    assert tuple(given[n] for n in ("inference_steps", "shift", "guidance_scale", "duration_s")) == expected
    Generate.parse({"prompt": "x"}, given)
    for mode in MODES:
        own = modes.defaults(mode)
        assert own.keys() == controls(mode).keys()
        assert {name: own[name] for name in KNOBS} == {name: given[name] for name in KNOBS}


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A second of sound in the upload folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "gradio").mkdir()
    path = str(tmp_path / "gradio" / "song.wav")
    soundfile.write(path, tone(seconds=1).T, 48_000, subtype="PCM_16")
    return path


@pytest.mark.parametrize(
    "mode, values, sentence",
    [
        (Cover, {}, "Song to cover is missing: add a recording first."),
        (Extend, {}, "Song to extend is missing: add a recording first."),
        (Edit, {}, "Song to edit is missing: add a recording first."),
        (Cover, {"reference_audio": "words.wav"}, "Not a WAV, FLAC, OGG, MP3 or AIFF file."),
        (Extend, {"source_audio": "gone.wav"}, "The upload has expired; please add it again."),
        (Edit, {"source_audio": "song.wav"}, "Regions are missing: mark the part of the song to change."),
        (Edit, {"source_audio": "song.wav", "regions": [[0.5, 1.5]]}, "Region 0.5 to 1.5 s must lie within the song, 0 to 1.00 s."),
    ],
)  # fmt: skip
def test_bad_recordings_and_regions_are_refused_before_the_gate(
    monkeypatch: pytest.MonkeyPatch, upload: str, mode: type[SongRequest], values: dict, sentence: str
) -> None:
    Path(upload).with_name("words.wav").write_text("no music")
    files = {n: str(Path(upload).with_name(v)) for n, v in values.items() if n.endswith("_audio")}
    monkeypatch.setattr(backend, "answer", lambda request: pytest.fail("a GPU second was spent"))
    with pytest.raises(StudioError) as refused:
        list(modes.run(modes.HANDLERS[mode], values | files))
    assert str(refused.value) == sentence


def test_turbo_says_what_it_cannot_do_before_it_reads_a_file(monkeypatch: pytest.MonkeyPatch, upload: str) -> None:
    monkeypatch.setenv("ACE_MODEL", "xl-turbo")
    song, lacks = {"source_audio": upload}, CHECKPOINTS["xl-turbo"].lacks
    assert modes.ask(Extend, song).mode == "extend" and modes.ask(Edit, {**song, "regions": [[0, 1]]}).mode == "edit"
    monkeypatch.setattr(audio_io, "admit", lambda path: pytest.fail("a file was read in vain"))
    for mode, values, reason in (
        (Cover, song, lacks["cover"]),
        (Edit, {**song, "sub_mode": "flow_edit"}, TURBO_LACKS["flow_edit"]),
    ):
        with pytest.raises(KnobError) as refused:
            modes.ask(mode, values)
        assert str(refused.value) == reason


def test_a_finished_file_is_kept_for_an_hour_and_no_longer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    *told, made = modes.run(modes.generate, WORDS)
    path = Path(made.path)
    assert all(isinstance(event, Progress) for event in told)
    assert path.parent.parent == outbox(tmp_path) and len(path.parent.name) >= 32, "128 bits in hex, nobody guesses"
    assert list((tmp_path / "scratch").iterdir()) == []
    assert soundfile.info(path).frames == 480_000 and tags.read(path).recipe == recipes.text(made.recipe)
    born = max(entry.lstat().st_ctime for entry in (path, path.parent))
    for later, there in ((audio_io.KEPT_S - 1, True), (audio_io.KEPT_S + 1, False)):
        monkeypatch.setattr(audio_io, "time", SimpleNamespace(time=lambda at=born + later: at))
        audio_io.sweep(outbox(tmp_path))
        assert path.is_file() is path.parent.is_dir() is there


def test_a_file_in_use_stays_and_what_gradio_swept_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used, idle = (Path(list(modes.run(modes.generate, WORDS))[-1].path) for _ in range(2))
    emptied, stray = outbox(tmp_path) / "emptied", outbox(tmp_path) / "stray.txt"
    emptied.mkdir()
    stray.touch()
    born = max(path.lstat().st_ctime for path in (used, idle, idle.parent, emptied))
    while used.lstat().st_ctime <= born:  # clocks of files tick slowly
        audio_io.held(used)
    monkeypatch.setattr(audio_io, "time", SimpleNamespace(time=lambda: used.lstat().st_ctime + audio_io.KEPT_S))
    audio_io.sweep(outbox(tmp_path))
    assert used.is_file() and not idle.parent.exists() and not emptied.exists() and stray.exists()
    audio_io.sweep(tmp_path / "nothing was ever kept")


def test_files_are_kept_each_in_a_folder_of_its_own(tmp_path: Path) -> None:
    def finished(values: dict, folder: Path) -> Iterator[Files]:
        paths = {name: folder / f"song - {name}.wav" for name in ("vocals", "drums")}
        for name, path in paths.items():
            path.write_text(name)
        yield Files({name: str(path) for name, path in paths.items()}, {"bytes": 6})

    ((made),) = modes.run(finished, {})
    assert made.metadata == {"bytes": 6} and made.paths.keys() == {"vocals", "drums"}
    assert {name: Path(path).read_text() for name, path in made.paths.items()} == {"vocals": "vocals", "drums": "drums"}
    assert {Path(path).name for path in made.paths.values()} == {"song - vocals.wav", "song - drums.wav"}
    folders = {Path(path).parent for path in made.paths.values()}
    assert len(folders) == 2 and {folder.parent for folder in folders} == {outbox(tmp_path)}
    assert list((tmp_path / "scratch").iterdir()) == []


def full(path: object, content: object) -> None:
    """In place of `audio_io.whole` or `shutil.move`: half of it is there when the disk is full."""
    half = Path(content) if isinstance(content, Path) else Path(f"{path}.part")
    half.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place, name", [(audio_io, "whole"), (shutil, "move")])
def test_a_full_disk_costs_the_file_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: object, name: str
) -> None:
    def told(path: Path, content: memoryview) -> None:
        try:
            full(path, content)
        except OSError as error:
            raise audio_io.unwritable(error) from error

    with monkeypatch.context() as during:
        during.setattr(place, name, told if place is audio_io else full)
        with pytest.raises(DiskFull, match="disk is full"):
            list(modes.run(modes.generate, WORDS))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not outbox(tmp_path).exists() or list(outbox(tmp_path).iterdir()) == []
    assert isinstance(list(modes.run(modes.generate, WORDS))[-1], Take)
