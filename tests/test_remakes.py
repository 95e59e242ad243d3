"""Cover, Extend and Edit as they are asked for: their door, what the engine hears of the song, and what it sings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import AudioError, InputError, KnobError
from remakes import Cover, Edit, Extend, Remake, replaced
from song import INSTRUMENTAL, LMOptions, recipe
from sound import HOP, SAMPLE_RATE, AudioClip

SOURCES = {Cover: "Song to cover", Extend: "Song to extend", Edit: "Song to edit"}
SONG = np.broadcast_to(np.arange(300 * SAMPLE_RATE, dtype=np.float32), (2, 300 * SAMPLE_RATE))  # samples tell where


def clip(samples: int) -> AudioClip:
    """A recording of this many samples, each of which is its own position; beyond 300 s they are silence."""
    here = SONG[:, :samples] if samples <= SONG.shape[1] else np.broadcast_to(np.float32(0), (2, samples))
    return AudioClip(here, {"format": "WAV"})


def ask(mode: type[Remake], seconds: float = 20, **values: Any) -> Any:
    """A request of a mode on a song of some seconds; a repaint without regions gets one."""
    own = {"regions": [[1, 2]]} if mode is Edit else {}
    return mode.parse({"source_audio": clip(round(seconds * SAMPLE_RATE)), **own, **values})


def idle(request: Remake) -> dict[str, str]:  # the planner's knobs are in test_controls_planner.py
    return {name: why for name, why in request.idle.items() if name not in LMOptions.model_fields}


def refusal(mode: type[Remake], seconds: float = 20, **values: Any) -> str:
    with pytest.raises(InputError) as refused:
        ask(mode, seconds, **values)
    message = refused.value.message
    assert message[-1] == "." and "\n" not in message and len(message) < 200
    return message


# The door


@pytest.mark.parametrize("mode", SOURCES)
def test_a_remake_without_its_song_is_refused(mode: type[Remake]) -> None:
    label = SOURCES[mode]
    for values in ({}, {"source_audio": None}):
        with pytest.raises(AudioError) as refused:
            mode.parse({"prompt": "x", **values})
        assert str(refused.value) == f"{label} is missing: add a recording first."
    for value in ("", "song.wav", b"RIFF", 5, True, {}, [1], np.zeros((2, 48_000)), float("nan")):
        assert refusal(mode, source_audio=value) == f"{label} must be a recording."


def test_a_timbre_reference_is_a_recording_or_nothing() -> None:
    assert ask(Cover).reference_audio is ask(Cover, reference_audio=None).reference_audio is None
    assert ask(Cover, reference_audio=(other := clip(48_000))).reference_audio is other
    assert refusal(Cover, reference_audio="song.wav") == "Timbre reference must be a recording."


def test_an_extension_ends_at_ten_minutes_in_all() -> None:
    assert ask(Extend, 570, extra_duration_s=30).seconds == 600
    told = "Extra duration (30 s) is too long: the song has {} s, and with it 600 s is the limit."
    for seconds, shown in ((571, "571.00"), (570.04, "570.04")):
        for side in ("after", "before"):
            assert refusal(Extend, seconds, extra_duration_s=30, side=side) == told.format(shown)
    assert refusal(Extend, 600, extra_duration_s="12.5").startswith(
        "Extra duration (12.5 s) is too long: the song has 600"
    )


def test_a_morph_may_not_begin_after_its_end() -> None:
    flow = {"sub_mode": "flow_edit", "regions": []}
    assert refusal(Edit, **flow, n_min=0.6, n_max=0.5) == "n_min (0.6) must not be above n_max (0.5)."
    assert ask(Edit, **flow, n_min=0.5, n_max=0.5).morphing == (13, 13)
    assert ask(Edit, n_min=0.6, n_max=0.5).n_min == 0.6, "in a repaint both are idle"


# Pairs

REFUSED_REGIONS = [
    ([[5, 4]], "Region 5 to 4 s must end at least 0.1 s after its start."),
    ([[5, 5]], "Region 5 to 5 s must end at least 0.1 s after its start."),
    ([[5, 5.05]], "Region 5 to 5.05 s must end at least 0.1 s after its start."),
    ([[-1, 2]], "Region -1 to 2 s must lie within the song, 0 to 20.00 s."),
    ([[-0.001, 2]], "Region -0.001 to 2 s must lie within the song, 0 to 20.00 s."),
    ([[19, 20.02]], "Region 19 to 20.02 s must lie within the song, 0 to 20.00 s."),
    ([[25, 30]], "Region 25 to 30 s must lie within the song, 0 to 20.00 s."),
    ([[1, 2], [3, 1e300]], "Region 3 to 1e+300 s must lie within the song, 0 to 20.00 s."),
    ([[1, 3], [2, 4]], "Region 2 to 4 s overlaps the one before it, which ends at 3 s."),
    ([[2, 4], [1, 3]], "Region 2 to 4 s overlaps the one before it, which ends at 3 s."),
    ([[0, 10], [2, 3], [11, 12]], "Region 2 to 3 s overlaps the one before it, which ends at 10 s."),
    ([[1, 2], [1, 2]], "Region 1 to 2 s overlaps the one before it, which ends at 2 s."),
    *((nothing, "Regions are missing: mark the part of the song to change.") for nothing in ([], (), None, "")),
]


@pytest.mark.parametrize("regions, sentence", REFUSED_REGIONS)
def test_regions_that_cannot_be_are_refused_with_the_reason(regions: Any, sentence: str) -> None:
    assert refusal(Edit, regions=regions) == sentence
    assert ask(Edit, regions=regions, sub_mode="flow_edit").morphs, "a flow morph needs no regions"


def test_regions_may_touch_come_in_any_order_and_as_text_and_reach_the_shown_end_of_the_song() -> None:
    asked = ask(Edit, regions=[["3", "4.5"], (1, 3), [19, 20.01]])
    assert asked.spans == [(48_000, 216_000), (912_000, 960_000)], "such as touch are one"
    assert len(ask(Edit, regions=[[i, i + 0.5] for i in range(16)]).spans) == 16
    assert ask(Edit, regions=[[0, 20]]).spans == [(0, 960_000)]
    assert ask(Edit, 20.004999, regions=[[10, 20.0]]).spans == [(480_000, 960_000)]


@pytest.mark.parametrize("start, end", [(0.2, 0.3), (1.1, 1.2), (19.9, 20)])
def test_the_shortest_region_may_lie_anywhere(start: float, end: float) -> None:
    """0.3 - 0.2 is less than 0.1 in floating point."""
    ((first, last),) = ask(Edit, regions=[[start, end]]).spans
    assert last - first == 4800


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.floats(-1, 21),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=8,
)
pairs = st.lists(st.lists(st.floats(-1, 21) | st.integers(-2, 21) | json_values, min_size=2, max_size=2), max_size=18)


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(regions=pairs | json_values, retakes=pairs | json_values)
def test_any_json_for_regions_and_retakes_is_accepted_or_refused_with_a_sentence(regions: Any, retakes: Any) -> None:
    source = AudioClip(np.zeros((2, 4800), np.float32), {})  # short: the recipe hashes it
    for own in ({"regions": regions, "sub_mode": "flow_edit"}, {"regions": regions}, {"retakes": retakes}):
        try:
            asked = Edit.parse({"source_audio": source, "regions": [[0, 0.1]], **own})
        except InputError as error:
            assert isinstance(error, KnobError) and error.message[-1] == "." and "\n" not in error.message
            assert len(str(error)) < 200
        else:
            assert json.loads(json.dumps(recipe(asked), allow_nan=False))["regions"] == [list(r) for r in asked.regions]


# What is heard


@pytest.mark.parametrize("samples", [240 * SAMPLE_RATE, 240 * SAMPLE_RATE + 777, 240 * SAMPLE_RATE - 1])
@pytest.mark.parametrize("side, begins", [("after", 180), ("before", 0)])
def test_an_extension_hears_its_context_next_to_the_new_part(samples: int, side: str, begins: int) -> None:
    heard, start = Extend.parse({"source_audio": clip(samples), "side": side}).heard()
    now = heard.source_audio.samples
    assert start == (samples - 60 * SAMPLE_RATE if side == "after" else 0)
    assert abs(start / SAMPLE_RATE - begins) < 0.04 and now.shape == (2, 60 * SAMPLE_RATE)
    assert np.array_equal(now, SONG[:, start : start + now.shape[1]])
    assert heard.seconds == 90 and heard.painted == ([(1500, 2250)] if side == "after" else [(0, 750)])


@pytest.mark.parametrize("side, begins", [("after", 777), ("before", 0)])
def test_of_a_shorter_song_an_extension_hears_all_whole_frames_by_the_new_part(side: str, begins: int) -> None:
    heard, start = Extend.parse({"source_audio": clip(25 * HOP + 777), "side": side}).heard()
    assert (start, heard.source_audio.samples.shape[1]) == (begins, 25 * HOP)
    assert heard.source_audio.samples[0, 0] == begins


@settings(max_examples=150, deadline=None, database=None)
@given(
    samples=st.integers(SAMPLE_RATE // 2, 120 * SAMPLE_RATE),
    context=st.floats(5, 240),
    new=st.integers(5 * SAMPLE_RATE, 240 * SAMPLE_RATE),
    side=st.sampled_from(["after", "before"]),
)
def test_an_extension_is_made_of_whole_frames_whatever_the_lengths(
    samples: int, context: float, new: int, side: str
) -> None:
    values = {"context_s": context, "extra_duration_s": new / SAMPLE_RATE, "side": side}
    heard, start = Extend.parse({"source_audio": clip(samples), **values}).heard()
    size, ((first, last),) = heard.source_audio.samples.shape[1], heard.painted
    assert size % HOP == 0 and (size > samples - HOP or abs(size - context * SAMPLE_RATE) <= HOP / 2)
    assert start >= 0 and start + size <= samples and (start == 0 or start + size == samples)
    assert first == (size // HOP if side == "after" else 0)
    assert 0 <= (last - first) * HOP - new <= HOP, "the new part must hold all that is asked for"
    assert heard.lead == (0 if side == "after" else (last - first) * HOP - new)
    assert heard.size == round(heard.seconds * SAMPLE_RATE) == size + new == size + heard.added
    again, moved = heard.heard()
    assert moved == 0 and np.array_equal(again.source_audio.samples, heard.source_audio.samples)


@pytest.mark.parametrize(
    "regions, begins, ends, moved",
    [
        ([[100, 110]], 75, 135, [(25, 35)]),
        ([[5, 15]], 0, 60, [(5, 15)]),
        ([[225, 235]], 180, 240, [(45, 55)]),
        ([[0, 240]], 0, 240, [(0, 240)]),
        ([[150, 160], [100, 105]], 85, 175, [(65, 75), (15, 20)]),
        ([[20, 22], [50, 55]], 5, 70, [(15, 17), (45, 50)]),
        ([[100.01, 110.01]], 75, 135, [(25.01, 35.01)]),
        ([[100.01, 150.02]], 85, 165.04, [(15.01, 65.02)]),
    ],
)
def test_a_repaint_hears_a_minute_or_its_regions_with_half_a_minute_around(
    regions: Any, begins: float, ends: float, moved: Any
) -> None:
    heard, start = ask(Edit, 240, regions=regions).heard()
    assert start == begins * SAMPLE_RATE
    assert np.array_equal(heard.source_audio.samples, SONG[:, start : round(ends * SAMPLE_RATE)])
    assert np.allclose(heard.regions, moved, atol=1e-9)
    assert heard.seconds == pytest.approx(ends - begins)


def test_a_short_song_is_heard_whole_to_its_last_sample() -> None:
    source = clip(20 * SAMPLE_RATE + 777)
    heard, start = Edit.parse({"source_audio": source, "regions": [[3, 20.01]]}).heard()
    assert start == 0 and np.array_equal(heard.source_audio.samples, source.samples)
    assert heard.painted == [(75, 501)], "the last frame is filled up with silence"


@pytest.mark.parametrize("extra", [1, 777, 1919])
def test_a_region_that_ends_with_the_song_is_heard_to_its_last_sample(extra: int) -> None:
    samples = 100 * SAMPLE_RATE + extra
    heard, start = Edit.parse({"source_audio": clip(samples), "regions": [[90, samples / SAMPLE_RATE]]}).heard()
    assert start + heard.source_audio.samples.shape[1] == start + heard.spans[-1][1] == samples


def test_a_flow_morph_hears_everything_and_so_does_a_cover() -> None:
    for request in (ask(Edit, 240, sub_mode="flow_edit", regions=[[5, 15]]), ask(Cover, 240)):
        heard, start = request.heard()
        assert heard is request and start == 0 and heard.seconds == 240


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(samples=st.integers(SAMPLE_RATE // 2, 240 * SAMPLE_RATE), data=st.data())
def test_regions_lie_within_what_is_heard_and_painted_frames_cover_them(samples: int, data: st.DataObject) -> None:
    edges = data.draw(st.lists(st.integers(0, samples), min_size=2, max_size=12, unique=True).map(sorted))
    spans = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if b - a > 4800] or [(0, samples)]
    asked = data.draw(st.permutations([[a / SAMPLE_RATE, b / SAMPLE_RATE] for a, b in spans]))
    heard, start = Edit.parse({"source_audio": clip(samples), "regions": asked}).heard()
    length, reach = heard.source_audio.samples.shape[1], spans[-1][1] - spans[0][0]
    reach = max(60 * SAMPLE_RATE, reach + 30 * SAMPLE_RATE)
    assert start % HOP == 0 and (length % HOP == 0 or start + length == samples)
    assert min(samples, reach) - HOP <= length <= min(samples, reach + 2 * HOP)
    assert heard.source_audio.samples[0, 0] == start and heard.source_audio.samples[0, -1] == start + length - 1
    assert heard.spans == [(a - start, b - start) for a, b in spans]
    assert all(0 <= a < b <= length for a, b in heard.spans)
    frames = -(-length // HOP)
    for (a, b), (first, last) in zip(heard.spans, heard.painted, strict=True):
        assert 0 <= first * HOP <= a < first * HOP + HOP and b <= last * HOP < b + HOP and last <= frames
    again, moved = heard.heard()
    assert moved == 0 and again.spans == heard.spans and again.seconds == heard.seconds


# What is sung

WORDS = "[verse]\none\ntwo\n\n[chorus]\nthree\nfour"  # in 40 s: at 5, 15, 25 and 35 s


@pytest.mark.parametrize(
    "regions, words",
    [
        ([(12, 18)], "[verse]\none\nNEW\n\n[chorus]\nthree\nfour"),
        ([(15, 15)], "[verse]\none\nNEW\n\n[chorus]\nthree\nfour"),
        ([(12, 28)], "[verse]\none\nNEW\n\n[chorus]\nfour"),
        ([(0, 40)], "[verse]\nNEW\n\n[chorus]"),
        ([(30, 40), (0, 6)], "[verse]\nNEW\ntwo\n\n[chorus]\nthree"),
        ([(6, 14)], "[verse]\none\nNEW\ntwo\n\n[chorus]\nthree\nfour"),
        ([(16, 24)], "[verse]\none\ntwo\n\n[chorus]\nNEW\nthree\nfour"),
        ([(30, 31), (6, 14)], "[verse]\none\nNEW\ntwo\n\n[chorus]\nthree\nfour"),
        ([(0, 1)], "[verse]\nNEW\none\ntwo\n\n[chorus]\nthree\nfour"),
        ([(36, 40)], f"{WORDS}\nNEW"),
    ],
)
def test_new_words_take_the_place_of_the_lines_in_the_regions(regions: Any, words: str) -> None:
    assert replaced(WORDS, "NEW", regions, 40) == words
    assert replaced(WORDS, "", regions, 40) == WORDS, "without new words the old ones are sung again"


def test_lyrics_of_tags_alone_keep_them_before_the_new_words() -> None:
    assert replaced("[intro]\n [outro]", "NEW", [(1, 2)], 40) == "[intro]\n [outro]\nNEW"


def test_a_repaint_sings_the_words_around_it_unless_told_otherwise() -> None:
    words = {"source_lyrics": WORDS, "target_lyrics": "NEW", "regions": [[12, 18]]}
    assert ask(Edit, 40, **words).sung == replaced(WORDS, "NEW", [(12, 18)], 40)
    assert ask(Edit, 40, **words, keep_words=False).sung == "NEW"
    assert ask(Edit, 40, **words, sub_mode="flow_edit").sung == "NEW"
    assert ask(Edit, 40, **words | {"source_lyrics": ""}).sung == "NEW"
    assert ask(Edit, 40, **words | {"target_lyrics": ""}).sung == WORDS
    assert ask(Edit, 40).sung == ""


def test_the_words_are_settled_by_the_whole_songs_time_before_the_cut() -> None:
    request = ask(Edit, 240, source_lyrics=WORDS, target_lyrics="NEW", regions=[[200, 220]])
    heard, start = request.heard()
    assert start > 0 and "four" not in request.sung
    assert heard.sung == request.sung == heard.heard()[0].sung
    assert (heard.target_lyrics, heard.keep_words) == (request.sung, False)


def test_what_each_mode_is_told_to_do_and_to_sing() -> None:
    cover, extend, edit = ask(Cover, lyrics="la"), ask(Extend, lyrics="la"), ask(Edit)
    assert (cover.size, edit.size, extend.size) == (960_000, 960_000, 2_400_000)
    assert (cover.task, cover.sung, cover.seconds) == ("cover", "la", 20)
    assert (extend.task, extend.sung, extend.seconds) == ("repaint", "la", 50)
    assert (edit.task, edit.seconds, ask(Edit, sub_mode="flow_edit").task) == ("repaint", 20, "text2music")
    assert ask(Cover).sung == "" and ask(Extend).sung == INSTRUMENTAL


# What the engine counts with


def test_a_cover_follows_its_song_for_a_share_of_the_steps() -> None:
    for strength, steps in {0: 0, 0.03: 0, 0.04: 1, 0.5: 13, 0.93: 25, 1: 27}.items():
        assert ask(Cover, inference_steps=27, cover_strength=strength).follows == steps


@pytest.mark.parametrize(
    "n_min, n_max, n_avg, steps, passes",
    [
        (0, 1, 1, (0, 8), 2),
        (0, 1, 5, (0, 8), 10),
        (0.25, 0.75, 2, (2, 6), 2.25),
        (0, 0, 5, (0, 0), 1),
        (1, 1, 5, (8, 8), 0),
        (0.3, 0.3, 1, (2, 2), 0.75),
    ],
)
def test_a_flow_morph_counts_its_forwards(n_min: float, n_max: float, n_avg: int, steps: Any, passes: float) -> None:
    flow = {"inference_steps": 8, "n_min": n_min, "n_max": n_max, "n_avg": n_avg}
    assert ask(Edit, sub_mode="flow_edit", **flow).morphing == steps
    assert ask(Edit, sub_mode="flow_edit", **flow).passes == passes
    assert ask(Edit, **flow).passes == ask(Cover).passes == ask(Extend).passes == 1


def test_conservative_and_aggressive_are_the_ends_of_strength_which_is_idle_there() -> None:
    for mode, share in (("conservative", 0), ("balanced", 0.3), ("aggressive", 1)):
        edit = ask(Edit, repaint_mode=mode, repaint_strength=0.3)
        assert edit.strength == share and ("repaint_strength" in edit.idle) == (mode != "balanced")


def test_controls_of_the_other_kind_of_edit_are_idle_with_the_reason() -> None:
    flow = dict.fromkeys(("source_caption", "n_min", "n_max", "n_avg"), "for Flow morph alone")
    assert idle(ask(Edit, source_lyrics="la")) == flow
    assert idle(ask(Edit)) == flow | {"keep_words": "there are no source lyrics"}
    assert "source_lyrics" in idle(ask(Edit, source_lyrics="la", keep_words=False))
    paint = dict.fromkeys(("regions", "repaint_mode", "repaint_strength", "keep_words"), "for Repaint alone")
    paint |= dict.fromkeys(("infer_method", "use_adg"), "a flow morph has a path of its own")
    assert idle(ask(Edit, sub_mode="flow_edit")) == paint
    assert idle(ask(Cover)) == idle(ask(Extend)) == {} and ask(Cover).lead == ask(Edit).lead == 0
