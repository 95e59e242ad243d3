"""New sound into old: what stays is the very same samples, what changes fits in, and the receipt tells the truth."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import audio_io
import finish
import splice
from formats import FORMATS
from remakes import Edit, Extend
from sound import HOP, SAMPLE_RATE, AudioClip
from splice import Splice

RATE = SAMPLE_RATE
NEW = 5 * RATE  # samples of an extension
SIDES = pytest.mark.parametrize("side", ["after", "before"])


def noise(samples: int, level: float = 0.1, seed: int = 1) -> np.ndarray:
    """Stereo noise of 24-bit samples with this root mean square."""
    sound = np.random.default_rng(seed).standard_normal((2, samples)) * level * 2**23
    return (np.rint(sound) / 2**23).astype(np.float32)


def tone(samples: int, peak: float = 0.3) -> np.ndarray:
    return np.float32(peak) * np.sin(2 * np.pi * 220 * np.tile(np.arange(samples), (2, 1)) / RATE, dtype=np.float32)


def extension(song: np.ndarray, **values: Any) -> Extend:
    return Extend.parse({"source_audio": AudioClip(song, {}), "extra_duration_s": 5, "context_s": 5, **values})


def extended(song: np.ndarray, gain: float = 1.0, fresh: np.ndarray | None = None, **values: Any) -> Splice:
    """An extension whose engine hears the song at `gain` and goes on with `fresh`, a tone by default."""
    request = extension(song, **values)
    heard, start = request.heard()
    again, fresh = heard.source_audio.samples * np.float32(gain), tone(NEW) if fresh is None else fresh
    made = np.concatenate([again, fresh] if request.side == "after" else [fresh, again], axis=1)
    return splice.extend(request, made, start)


def repainted(song: np.ndarray, made: np.ndarray, *regions: tuple[float, float], **values: Any) -> Splice:
    """A repaint by an engine that makes `made`, as long as the song, of which the part that is heard is used."""
    request = Edit.parse({"source_audio": AudioClip(song, {}), "regions": list(regions), **values})
    heard, start = request.heard()
    return splice.repaint(request, made[:, start : start + heard.source_audio.samples.shape[1]], start)


def outside(song: Splice) -> np.ndarray:
    """True for each sample that is to stay."""
    mask = np.ones(song.samples.shape[1], bool)
    for a, b in song.changed:
        mask[a:b] = False
    return mask


SONG, LENGTH = noise(8 * RATE + 777), 8 * RATE + 777


# Extend


@SIDES
@pytest.mark.parametrize("crossfade", [0, 0.5, 5])
def test_an_extended_song_keeps_all_samples_but_those_of_the_seam(side: str, crossfade: float) -> None:
    song, fade = extended(SONG, 0.9, side=side, crossfade_s=crossfade), round(crossfade * RATE)
    shift = 0 if side == "after" else NEW
    assert song.samples.shape == (2, LENGTH + NEW) and song.samples.dtype == np.float32 and song.shift == shift
    assert song.seams == [(LENGTH - fade, LENGTH) if side == "after" else (NEW, NEW + fade)]
    assert song.changed == [(LENGTH - fade, LENGTH + NEW) if side == "after" else (0, NEW + fade)]
    assert song.kept() == [(0, LENGTH - fade) if side == "after" else (NEW + fade, LENGTH + NEW)]
    kept = outside(song)
    assert np.array_equal(song.samples[:, kept], SONG[:, kept[shift : shift + LENGTH]])
    assert np.array_equal(song.samples[:, kept], song.part(song.kept()))
    part = slice(LENGTH, LENGTH + NEW) if side == "after" else slice(NEW)
    assert np.allclose(song.samples[:, part], tone(NEW) / 0.9, atol=1e-6), "the engine's, brought level"
    assert song.gain_db == pytest.approx(-20 * np.log10(0.9), abs=0.01)


@SIDES
def test_a_crossfade_changes_the_seam_and_nothing_else(side: str) -> None:
    short, long = (extended(SONG, 0.8, side=side, crossfade_s=s) for s in (0.5, 2))
    ((a, b),), differ = long.seams, (short.samples != long.samples).any(axis=0)
    assert differ[a:b].any() and not differ[:a].any() and not differ[b:].any()


@SIDES
def test_where_the_engine_plays_the_song_as_it_is_the_seam_is_the_song(side: str) -> None:
    song = extended(SONG, side=side)
    assert np.allclose(song.samples[:, song.shift :][:, :LENGTH], SONG, atol=1e-7)


@SIDES
def test_over_the_seam_strangers_change_places_at_equal_power_from_one_end_to_the_other(side: str) -> None:
    request = extension(np.zeros((2, 8 * RATE), np.float32), side=side, crossfade_s=1)
    heard, start = request.heard()
    song = splice.extend(request, np.full((2, heard.size), 0.5, np.float32), start)
    ((a, b),), share = song.seams, (np.arange(RATE) + 0.5) / RATE
    made = song.samples[0, a:b] * 2 if side == "after" else song.samples[0, a:b][::-1] * 2
    assert np.allclose(made, share / np.hypot(share, 1 - share), atol=1e-6)


@pytest.mark.parametrize("alike", [1.0, 0.5, 0.0])
def test_the_level_neither_dips_nor_bulges_in_a_blend_however_alike_the_sounds_are(alike: float) -> None:
    old, other = noise(RATE), noise(RATE, seed=2)
    blended = splice.blend(old, np.float32(alike) * old + np.float32((1 - alike**2) ** 0.5) * other)
    tenths = [splice.rms(part) for part in np.split(blended, 10, axis=1)]
    assert np.allclose(20 * np.log10(np.array(tenths) / splice.rms(old)), 0, atol=0.2) and blended.dtype == np.float32
    assert alike < 1 or np.allclose(blended, old, atol=1e-6)


@SIDES
def test_a_seam_longer_than_what_was_heard_is_as_long_as_that(side: str) -> None:
    short = noise(49 * HOP + 777)
    song = extended(short, side=side, crossfade_s=5)
    assert [b - a for a, b in song.seams] == [49 * HOP]
    assert song.kept() == [(0, 777) if side == "after" else (NEW + 49 * HOP, NEW + 49 * HOP + 777)]
    assert np.array_equal(song.part(song.kept()), short[:, :777] if side == "after" else short[:, -777:])
    assert extended(noise(50 * HOP), side=side, crossfade_s=5).kept() == []


@SIDES
def test_a_part_that_is_no_whole_number_of_samples_joins_as_well(side: str) -> None:
    short = noise(49 * HOP)
    for half in range(NEW, NEW + 50):
        request = extension(short, side=side, extra_duration_s=(half + 0.5) / RATE)
        heard, start = request.heard()
        song = splice.extend(request, noise(heard.size), start)
        assert song.samples.shape[1] == 49 * HOP + request.added and abs(request.added - half) <= 1
        assert np.array_equal(song.part(song.kept()), short[:, outside(song)[song.shift :][: 49 * HOP]])


# Level


def test_new_sound_is_brought_level_within_three_decibels_without_clipping() -> None:
    old, fresh, top = noise(RATE), tone(RATE), 10 ** (3 / 20)
    for gain, told in ((1, 1), (0.9, 1 / 0.9), (1.2, 1 / 1.2), (0.1, top), (9, 1 / top)):
        assert splice.matching(old, old * np.float32(gain), fresh) == pytest.approx(told, rel=1e-4)
    assert splice.matching(old, old * np.float32(0.8), tone(RATE, 0.9)) == pytest.approx(audio_io.CEILING / 0.9, 1e-4)
    assert splice.matching(old, old, tone(RATE, 2)) == pytest.approx(audio_io.CEILING / 2, rel=1e-4)
    for quiet in (old * 0, old[:, :0], old * np.float32(0.009)):
        assert splice.matching(quiet, old, fresh) == splice.matching(old, quiet, fresh) == 1.0
    assert splice.matching(old, old, fresh[:, :0]).dtype == np.float32


@SIDES
def test_a_seam_does_not_clip_where_the_engine_plays_the_song_with_higher_peaks(side: str) -> None:
    """As a VAE does with a loud master. Song and seam are written in 24 bits."""
    loud, fresh = tone(8 * RATE, 0.5), noise(NEW, 0.05)
    loud[:, ::4800] = 0.99  # clicks, which the level hardly shows
    request = extension(loud, side=side)
    heard, start = request.heard()
    again = np.where(heard.source_audio.samples > 0.9, 1.2, heard.source_audio.samples).astype(np.float32)
    made = np.concatenate([again, fresh] if side == "after" else [fresh, again], axis=1)
    assert np.abs(splice.extend(request, made, start).samples).max() <= 1.0


def test_the_ramps_of_a_repaint_do_not_clip_where_old_and_new_sound_happen_to_agree() -> None:
    loud = tone(8 * RATE, 0.9)
    assert np.abs(repainted(loud, loud, (2, 4)).samples).max() <= 1.0


def test_the_step_at_a_seam_is_the_level_after_it_over_that_before() -> None:
    size = round(splice.LEVEL_S * RATE)
    sound = np.concatenate([tone(size, 0.9), tone(size, 0.1), tone(100, 1.0), tone(size, 0.2), tone(size, 0.9)], axis=1)
    assert splice.step(sound, (2 * size, 2 * size + 100)) == pytest.approx(6.02, abs=0.01)
    assert splice.step(sound, (size, size)) == pytest.approx(-19.08, abs=0.01)
    for seam in ((0, 100), (sound.shape[1] - 100, sound.shape[1]), (0, sound.shape[1])):
        assert splice.step(sound, seam) is None, "nothing on one side"
    assert splice.step(np.concatenate([sound * 0, sound], axis=1), (sound.shape[1],) * 2) is None, "silence before"


@SIDES
def test_an_extension_at_another_level_meets_the_song_within_a_decibel(side: str, tmp_path: Path) -> None:
    song = extended(SONG, 0.75, noise(NEW, 0.075, seed=2), side=side)
    assert abs(received(song, SONG, tmp_path)["seams"][0]["level_db"]) < 0.2


# Repaint

WIDTHS = [("conservative", 0.9, 2400), ("balanced", 0, 2400), ("balanced", 0.5, 1200), ("balanced", 1, 240)]


@pytest.mark.parametrize("mode, strength, width", [*WIDTHS, ("aggressive", 0.1, 240)])
def test_outside_its_regions_a_repainted_song_is_the_song_to_the_bit(mode: str, strength: float, width: int) -> None:
    long, made = np.tile(SONG, 12), np.tile(noise(LENGTH, seed=2), 12)  # 96 s: not all of it is heard
    song = repainted(long, made, (70.0001, 72.5), (60, 60.1), repaint_mode=mode, repaint_strength=strength)
    assert song.samples.shape == long.shape and song.samples.dtype == np.float32 and song.shift == 0
    assert song.changed == [(2_880_000, 2_884_800), (3_360_005, 3_480_000)]
    assert np.array_equal(song.samples[:, outside(song)], long[:, outside(song)])
    assert song.seams == [s for a, b in song.changed for s in ((a, a + width), (b - width, b))], "inside the regions"
    for a, b in song.changed:
        new = made[:, a + width : b - width] * np.float32(10 ** (song.gain_db / 20))
        assert np.allclose(song.samples[:, a + width : b - width], new, atol=1e-3)
        assert not np.array_equal(song.samples[:, a : a + width], long[:, a : a + width])


def test_ramps_keep_the_power_of_two_strangers() -> None:
    song = repainted(SONG, noise(LENGTH, seed=2), *((i, i + 0.5) for i in range(1, 8)), repaint_strength=0)
    for third in range(3):
        pieces = [(a + third * 800, a + third * 800 + 800) for a, _ in song.seams]
        assert abs(20 * np.log10(splice.rms(song.part(pieces)) / splice.rms(SONG))) < 0.5


def test_ramps_begin_with_the_old_sound_and_end_with_the_new() -> None:
    flat = np.full((2, 4 * RATE), 0.25, np.float32)
    song = repainted(flat, np.where(np.arange(4 * RATE) // RATE == 1, -flat, flat), (1, 2), repaint_strength=0)
    ((a, b), (c, d)) = song.seams
    assert song.gain_db == 0 and np.allclose(song.samples[:, [a, d - 1]], 0.25, atol=1e-3)
    assert np.allclose(song.samples[:, [b - 1, c]], -0.25, atol=1e-3)
    assert np.array_equal(song.samples[:, b:c], -flat[:, b:c])
    assert np.allclose(song.samples[:, a:b], song.samples[:, c:d][:, ::-1], atol=1e-6)
    assert (np.abs(np.diff(song.samples[0, a:b])) < 0.001).all(), "no click"


def test_at_the_songs_own_beginning_and_end_there_is_nothing_to_blend_with() -> None:
    made, end = noise(LENGTH, seed=2), LENGTH / RATE
    song = repainted(SONG, made, (0, 1), (end - 1, end))
    assert song.seams == [(RATE - 1200, RATE), (LENGTH - RATE, LENGTH - RATE + 1200)]
    gain = song.samples[0, 0] / made[0, 0]
    for edge in (slice(0, RATE - 1200), slice(LENGTH - RATE + 1200, LENGTH)):
        assert np.allclose(song.samples[:, edge], made[:, edge] * gain, atol=1e-6)
    all_of_it = repainted(SONG, made, (0, end))
    assert all_of_it.seams == all_of_it.kept() == [] and np.array_equal(all_of_it.samples, made)


def test_the_shortest_region_has_room_for_both_ramps() -> None:
    song = repainted(SONG, noise(LENGTH, seed=2), (7.92, 8.025), (3, 3.1), repaint_strength=0)  # the song ends at 8.016
    assert song.seams == [(144_000, 146_400), (146_400, 148_800), (380_160, 380_160 + (LENGTH - 380_160) // 2)]


def test_a_repaint_is_matched_by_the_second_around_its_regions_alone() -> None:
    made = SONG * np.float32(0.8)
    made[:, : 2 * RATE] *= 99  # farther away than a second
    made[:, 6 * RATE :] *= 99
    made[:, 3 * RATE : 4 * RATE] = 0.001  # within the first region
    made[:, round(4.5 * RATE) : 5 * RATE] = 0.001  # within the second, in reach of the first
    song = repainted(SONG, made, (3, 4), (4.5, 5))
    assert song.gain_db == pytest.approx(1.94, abs=0.01)
    assert np.allclose(song.samples[:, 3 * RATE + 2400 : 4 * RATE - 2400], 0.001 / 0.8, atol=1e-7)


def test_touching_regions_keep_what_is_around_them() -> None:
    song = repainted(SONG, noise(LENGTH, seed=2), (2, 3), (3, 4))
    assert song.kept() == [(0, 2 * RATE), (4 * RATE, LENGTH)]
    assert np.array_equal(song.samples[:, outside(song)], SONG[:, outside(song)])


# Whole songs


def test_a_song_that_is_new_throughout_is_the_engines_and_only_turned_down_if_it_would_clip() -> None:
    song = splice.whole(extension(SONG), SONG, 0)
    assert song.samples is SONG and song.gain_db == 0
    assert (song.changed, song.seams, song.kept()) == ([(0, LENGTH)], [], [])
    loud = splice.whole(extension(SONG), tone(RATE, 2), 0)
    assert (loud.gain_db, np.abs(loud.samples).max()) == pytest.approx((-7.02, audio_io.CEILING), abs=0.01)


@given(st.lists(st.integers(0, 20), max_size=6).map(sorted), st.integers(20, 25))
@settings(max_examples=200, deadline=None, database=None)
def test_kept_and_changed_make_up_the_song(edges: list[int], length: int) -> None:
    spans = list(zip(edges[::2], edges[1::2], strict=False))
    song = Splice(np.arange(2 * length).reshape(2, -1), spans, [], 0, 0.0)
    assert sorted(i for a, b in [*song.kept(), *spans] for i in range(a, b)) == list(range(length))
    assert all(a < b for a, b in song.kept())
    assert song.part(song.kept()).shape == (2, sum(b - a for a, b in song.kept()))


# Receipts


def received(song: Splice, source: np.ndarray, folder: Path) -> dict[str, Any]:
    """The receipt of a song that is written as the studio writes it."""
    exact = not audio_io.survives(song.part(song.kept()))
    finish.write(folder / "a.wav", song.samples, {"title": "A", "lyrics": ""}, FORMATS["wav32" if exact else "wav24"])
    return json.loads(json.dumps(splice.receipt(song, AudioClip(source, {}), folder / "a.wav"), allow_nan=False))


def hash_of(*parts: np.ndarray) -> str:
    return hashlib.sha256(b"".join(part.T.astype("<f4").tobytes() for part in parts)).hexdigest()


def mp3() -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, SONG.T, RATE, format="MP3")
    return np.ascontiguousarray(soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0].T)


SOURCES = [(SONG, "PCM_24"), (SONG * 20, "FLOAT"), (mp3(), "FLOAT"), (np.round(SONG, 1), "FLOAT")]
every_source = pytest.mark.parametrize("source, subtype", SOURCES, ids=["24 bit", "too loud", "MP3", "decimal"])


@every_source
@SIDES
def test_the_receipt_of_an_extension_is_measured_on_the_file(source, subtype, side: str, tmp_path: Path) -> None:
    song = extended(source, side=side)
    told, kept = received(song, source, tmp_path), source.shape[1] - 2 * RATE
    assert soundfile.info(tmp_path / "a.wav").subtype == subtype
    assert told["source"]["sha256"] == hash_of(source) and told["source"]["samples"] == source.shape[1]
    same = source[:, :kept] if side == "after" else source[:, -kept:]
    assert told["kept"] == {"samples": kept, "sha256": hash_of(same), "identical": True}
    assert told["changed"] == [list(song.changed[0])] and told["gain_db"] == song.gain_db
    assert [(s["from"], s["to"], type(s["level_db"])) for s in told["seams"]] == [(*song.seams[0], float)]


@every_source
def test_the_receipt_of_a_repaint_is_measured_on_the_file(source, subtype, tmp_path: Path) -> None:
    song = repainted(source, noise(source.shape[1], seed=2), (2, 3), (5.5, 6))
    told = received(song, source, tmp_path)
    kept = [source[:, : 2 * RATE], source[:, 3 * RATE : 264_000], source[:, 6 * RATE :]]
    assert soundfile.info(tmp_path / "a.wav").subtype == subtype
    assert told["kept"] == {"samples": sum(k.shape[1] for k in kept), "sha256": hash_of(*kept), "identical": True}
    assert told["changed"] == [[96_000, 144_000], [264_000, 288_000]]
    assert [(s["from"], s["to"], type(s["level_db"])) for s in told["seams"]] == [(*s, float) for s in song.seams]


def test_a_song_of_negative_zeros_is_kept_as_well(tmp_path: Path) -> None:
    """A float file may hold -0.0, which a 24-bit one cannot."""
    source = SONG.copy()
    source[:, :5] = -0.0
    assert received(repainted(source, SONG, (2, 3)), source, tmp_path)["kept"]["identical"] is True


@pytest.mark.parametrize("place", [0, 2 * RATE - 1, 3 * RATE, -1])
def test_a_kept_sample_that_changed_on_the_way_to_the_file_is_told(place: int, tmp_path: Path) -> None:
    song = repainted(SONG, noise(LENGTH, seed=2), (2, 3))
    assert received(song, SONG, tmp_path)["kept"]["identical"] is True
    song.samples[1, place] += 2.0**-23
    told = received(song, SONG, tmp_path)
    assert told["kept"]["identical"] is False
    assert told["kept"]["sha256"] == hash_of(song.samples[:, : 2 * RATE], song.samples[:, 3 * RATE :])


def test_where_nothing_was_to_be_kept_the_receipt_claims_nothing(tmp_path: Path) -> None:
    told = received(splice.whole(extension(SONG), SONG, 0), SONG, tmp_path)
    assert told["kept"] == {"samples": 0, "sha256": hashlib.sha256(b"").hexdigest(), "identical": None}
    assert told["changed"] == [[0, LENGTH]] and told["seams"] == []
