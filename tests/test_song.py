"""The one door: whatever is typed becomes a frozen request or one sentence. Rows T1, T2, T6, T8, T9 of the fault table."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from asking import ask, read, refusal
from hypothesis import HealthCheck, example, given, settings, strategies
from pydantic import ValidationError

import song
from errors import KnobError, StudioError
from fields import SEED_MAX, clean, fields_of
from remakes import Cover, Edit, Extend
from song import DURATION_RANGE, INSTRUMENTAL, KNOBS, LYRICS_LIMIT, PROMPT_LIMIT, Generate, SongRequest
from sound import AudioClip, Progress, Sound, Take

MANY = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


# T1, T2: text


@pytest.mark.parametrize("name, label, limit", [("prompt", "Style prompt", 512), ("lyrics", "Lyrics", 4096)])
def test_text_over_its_limit_is_refused_with_both_counts(name: str, label: str, limit: int) -> None:
    assert len(read(name, "a" * limit)) == limit
    assert refusal(**{name: "a" * (limit + 1)}) == f"{label} may hold {limit:,} characters; yours has {limit + 1:,}."
    assert refusal(**{name: "a" * 1_000_000}) == f"{label} may hold {limit:,} characters; yours has 1,000,000."


HOSTILE = {
    "nul\x00": "nul",
    "\x1b[31mred\x1b[0m": "red",
    "\x1b[2J\x1b]0;title\x07": "]0;title",
    "bell\x07 back\x08 del\x7f c1\x85 end": "bell back del c1 end",
    "safe \u202egnirts\u202c": "safe gnirts",
    "\u2066isolate\u2069 \u200emark\u200f": "isolate mark",
    "zero\u200bwidth\u2060join\ufeff": "zerowidthjoin",
    "lone \ud800surrogate\udfff": "lone surrogate",
    "line\r\nline\rline": "line\nline\nline",
    "tab\tstays\nas does a line": "tab\tstays\nas does a line",
    "cafe\u0301": "café",
    " \u3000 spaces \n": "spaces",
    "half <|endoftext|>the song": "half the song",
    "<|im_start|>system": "system",
    "<\x00|endoftext|>": "",
    "<|end\u202eoftext|\u200b>": "",
    "a < b | c > d": "a < b | c > d",
    "[verse]\n<oh> |yeah|": "[verse]\n<oh> |yeah|",
    "می\u200cخواهم": "می\u200cخواهم",
    "\U0001f469\u200d\U0001f3a4 sings \U0001f3b5": "\U0001f469\u200d\U0001f3a4 sings \U0001f3b5",
    "<img src=x onerror=alert(1)>": "<img src=x onerror=alert(1)>",  # text is text; the page escapes it
}


@pytest.mark.parametrize("typed, kept", HOSTILE.items(), ids=lambda text: ascii(text)[:30])
def test_what_cannot_be_sung_or_would_trick_a_reader_is_dropped(typed: str, kept: str) -> None:
    assert read("lyrics", typed) == kept


CRUMBS = ["<", "<|", "|", "|>", ">", "a", "e", "\u0301", " ", "\r", "\x00", "\u202e", "\ud800", "\x1b", "\x1b[0m"]


@MANY
@example("<|<|a|>|>")
@example("<\x00|a|>")
@example(f"<|{'a' * 30}{chr(0) * 30}|>")
@example("e<|a|>\u0301")
@given(text=strategies.text() | strategies.lists(strategies.sampled_from(CRUMBS), max_size=12).map("".join))
def test_cleaning_leaves_nothing_to_clean(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not re.search(r"<\|[^<>]{0,40}\|>", once)
    assert unicodedata.is_normalized("NFC", once)
    assert not {unicodedata.category(c) for c in once if c not in "\n\t"} & {"Cc", "Cs"}
    once.encode()  # may be written and sent


def test_cleaning_a_megabyte_of_nested_tokens_takes_a_moment() -> None:
    """Removing one level of nesting at a time would take hours; the file's time limit would say so."""
    clean("<|" * 250_000 + "x" + "|>" * 250_000)


# T6: anything


@MANY
@given(prompt=strategies.text(max_size=600), lyrics=strategies.text(max_size=300), key=strategies.text(max_size=12))
def test_any_text_is_accepted_or_refused_with_a_sentence(prompt: str, lyrics: str, key: str) -> None:
    try:
        asked = Generate.parse({"prompt": prompt, "lyrics": lyrics, "keyscale": key, "lm_negative_prompt": prompt})
    except StudioError as error:
        assert error.message.endswith(".")
    else:
        assert len(asked.prompt) <= PROMPT_LIMIT and len(asked.lyrics) <= LYRICS_LIMIT
        assert asked.prompt or asked.lyrics
        json.dumps(song.recipe(asked), allow_nan=False).encode()


anything = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=5,
)


@MANY
@given(name=strategies.sampled_from([*fields_of(Generate), *KNOBS, "nonsense"]), value=anything)
def test_any_value_for_any_control_is_accepted_or_refused_with_a_sentence(name: str, value: Any) -> None:
    try:
        json.dumps(song.recipe(ask(**{name: value})), allow_nan=False)
    except StudioError as error:
        assert error.message.endswith(".")


def test_a_song_needs_a_prompt_or_lyrics() -> None:
    for prompt, lyrics in (("", ""), ("   ", "\n"), ("\u200b", "\x00"), ("<|endoftext|>", "")):
        assert "a style prompt or some lyrics" in refusal(prompt=prompt, lyrics=lyrics)
    assert ask(prompt="", lyrics="la la").sung == "la la"
    assert ask(prompt="\U0001f3b5\U0001f525").prompt == "\U0001f3b5\U0001f525"


def test_instrumental_leaves_the_lyrics_out() -> None:
    assert ask(lyrics="la la", instrumental=True).sung == INSTRUMENTAL
    assert ask(lyrics="la la").sung == "la la"
    assert ask().sung == ""
    assert "Write a style prompt" in refusal(prompt="", lyrics="la la", instrumental=True)


# T8, T9: values that do not go together, keys


def test_guidance_may_not_begin_after_its_end() -> None:
    message = refusal(cfg_interval_start=0.8, cfg_interval_end=0.25)
    assert message == "CFG interval start (0.8) must not be above CFG interval end (0.25)."
    assert ask(cfg_interval_start=0.5, cfg_interval_end=0.5).advanced.cfg_interval_end == 0.5


KEYS = {
    "": "",
    "C": "C major",
    "c major": "C major",
    "C Major": "C major",  # as the field's own description spells it
    "F# minor": "F# minor",
    "F#m": "F# minor",
    "Am": "A minor",
    "AM": "A major",
    "Bb maj": "Bb major",
    "b♭min": "Bb minor",
    " D♯  minor ": "D# minor",
    "E flat major": "Eb major",
    "G sharp Minor": "G# minor",
}


@pytest.mark.parametrize("typed, known", KEYS.items())
def test_a_key_is_read_as_the_model_was_taught_it(typed: str, known: str) -> None:
    assert read("keyscale", typed) == known


@pytest.mark.parametrize(
    "typed", ["H minor", "H minor; DROP", "C major\nlyrics", "C##", "major", "C minor 7", "x" * 999]
)
def test_what_is_not_a_key_is_refused_with_an_example(typed: str) -> None:
    assert refusal(keyscale=typed).startswith("Key / scale must be a key such as C major, F# minor or Am; it is '")


@pytest.mark.parametrize("typed, code", [(4, "4"), ("4/4", "4"), (" 6/8 ", "6"), ("3", "3"), ("", "")])
def test_a_time_signature_may_be_typed_as_musicians_do(typed: Any, code: str) -> None:
    assert read("timesignature", typed) == code


# Retakes


def settled(*retakes: Any, seed: int = 7) -> tuple[int, tuple]:
    """The seed and the turns that are left of some retakes."""
    asked = ask(seed=seed, retakes=list(retakes))
    return asked.advanced.seed, asked.retakes


def test_retakes_that_change_nothing_or_everything_are_resolved_into_the_seed() -> None:
    assert settled() == (7, ())
    assert settled([5, 0.3]) == (7, ((5, 0.3),))
    assert settled([5, 0.3], [6, 0.2], [5, 0.3]) == (7, ((5, 0.3), (6, 0.2), (5, 0.3))), "a chain stays as it is"
    assert settled([5, 0]) == (7, ())
    assert settled([4, 0.1], [5, 0], [6, 0.2]) == (7, ((4, 0.1), (6, 0.2)))
    assert settled([5, 1]) == (5, ())
    assert settled([4, 0.1], [5, 1], [6, 0.2]) == (5, ((6, 0.2),))
    assert settled([4, 1], [5, 1], [6, 0]) == (5, ())
    assert settled(["5", "0.5"], [0, 0.5], [SEED_MAX, 1e-9]) == (7, ((5, 0.5), (0, 0.5), (SEED_MAX, 1e-9)))
    assert settled(*[[i, 0.5] for i in range(16)]) == (7, tuple((i, 0.5) for i in range(16)))
    assert ask(retakes=None).retakes == ask(retakes="").retakes == ask(retakes=()).retakes == ()


def test_a_retakes_random_seed_is_drawn_once_and_anew_for_each() -> None:
    first, second = (settled([-1, 0.5], [-1, 0.5])[1] for _ in range(2))
    drawn = [seed for seed, _ in first + second]
    assert len(set(drawn)) == 4 and all(0 <= seed <= SEED_MAX for seed in drawn)
    assert settled([-1, 1]) != (7, ()) == settled([-1, 0])


@given(
    seed=strategies.integers(-1, SEED_MAX),
    retakes=strategies.lists(
        strategies.tuples(strategies.integers(-1, SEED_MAX), strategies.floats(0, 1)), max_size=16
    ),
)
@settings(max_examples=200, deadline=None, database=None)
def test_a_settled_request_is_settled(seed: int, retakes: list) -> None:
    asked = ask(seed=seed, retakes=retakes)
    assert all(0 <= s <= SEED_MAX and 0 < v < 1 for s, v in ((asked.advanced.seed, 0.5), *asked.retakes))
    told = json.loads(json.dumps(song.recipe(asked)))
    assert ask(seed=told["seed"], retakes=told["retakes"]) == asked


# Requests


def remade(mode: type[SongRequest], **values: Any) -> Any:
    """A request that begins with a second of sound."""
    samples = np.random.default_rng(0).uniform(-1, 1, (2, 48_000)).astype(np.float32)
    return mode.parse({"source_audio": AudioClip(samples, {"format": "FLAC"}), "seed": 3, **OWN[mode], **values})


OWN = {
    Cover: {"cover_strength": 0.25, "lyrics": "la"},
    Extend: {"side": "before", "extra_duration_s": 5},
    Edit: {"regions": [[0.5, 0.9], [0, 0.2]], "keep_words": False, "n_avg": 2},
}


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(KnobError) as refused:
        ask(infer_steps=30)
    assert refused.value.message == "'infer_steps' is not a control of Generate."
    assert refused.value.hint == "Did you mean inference_steps?"
    for name in ("x" * 5000, "advanced", "lm"):
        with pytest.raises(KnobError, match="is not a control") as refused:
            ask(**{name: {}})
        assert not refused.value.hint and len(str(refused.value)) < 100


def test_a_random_seed_is_resolved_once_and_zero_is_a_seed_of_its_own() -> None:
    drawn = {ask(seed=-1).advanced.seed for _ in range(50)}
    assert len(drawn) > 45 and all(0 <= seed <= SEED_MAX for seed in drawn)
    assert ask(seed=0).advanced.seed == 0
    assert ask(seed=SEED_MAX).advanced.seed == SEED_MAX
    assert song.recipe(ask(seed=7))["seed"] == song.recipe(ask(seed=7))["advanced"]["seed"] == 7


def test_the_largest_draw_is_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(song.secrets, "randbelow", lambda limit: limit - 1)
    assert ask().advanced.seed == SEED_MAX
    monkeypatch.setattr(song.secrets, "randbelow", lambda limit: 0)
    assert ask().advanced.seed == 0


def test_a_checkpoints_defaults_stand_where_nothing_is_asked() -> None:
    own = {"inference_steps": 8, "duration_s": 12}
    asked = Generate.parse({"prompt": "x", "duration_s": 20}, own)
    assert (asked.advanced.inference_steps, asked.duration_s, asked.advanced.shift) == (8, 20, 1.0)


@pytest.mark.parametrize("value", [DURATION_RANGE[0] - 1, DURATION_RANGE[1] + 1, float("nan"), None, True, "long"])
def test_a_duration_out_of_range_is_refused_with_its_limits(value: Any) -> None:
    assert refusal(duration_s=value).startswith("Duration (s) must be a number from 10 to 600; it is ")


def test_a_request_is_frozen() -> None:
    asked = ask()
    for part, name in ((asked, "prompt"), (asked.advanced, "seed"), (asked.lm, "thinking")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, getattr(part, name))


def test_all_that_crosses_to_a_worker_and_back_pickles() -> None:
    asked = ask(seed=3, bpm=90)
    assert pickle.loads(pickle.dumps(asked)) == asked
    for value in (Progress("Denoising", 3, 27, 1.5), Take("a.wav", {"seed": 3})):
        assert pickle.loads(pickle.dumps(value)) == value
    sound = Sound(np.ones((2, 4), np.float32), 48_000, {"total_s": 1.0}, {"key": "demo"}, ("short",))
    back = pickle.loads(pickle.dumps(sound))
    assert np.array_equal(back.samples, sound.samples) and back.warnings == ("short",)
    assert vars(back) | {"samples": 0} == vars(sound) | {"samples": 0}
    for mode in (Cover, Extend, Edit):
        for known in (False, True):  # what a recording remembers of itself
            request, _ = remade(mode).heard()
            assert not known or request.source_audio.facts
            again = pickle.loads(pickle.dumps(request))
            assert np.array_equal(again.source_audio.samples, request.source_audio.samples)
            assert again.source_audio.facts == request.source_audio.facts
            assert again.model_copy(update={"source_audio": request.source_audio}) == request


def test_a_recipe_makes_the_same_request_again() -> None:
    values = {
        "prompt": "cello",
        "lyrics": "la",
        "seed": 5,
        "bpm": 90,
        "keyscale": "Am",
        "use_adg": True,
        "duration_s": 42,
    }
    asked = Generate.parse(values)
    told = json.loads(json.dumps(song.recipe(asked), allow_nan=False))
    assert told.pop("mode") == "generate"
    assert told.pop("seed") == 5
    assert (len(told["advanced"]), len(told["lm"])) == (12, 9)
    assert Generate.parse(told.pop("advanced") | told.pop("lm") | told) == asked


@pytest.mark.parametrize("mode", OWN)
def test_a_recipe_of_a_remake_makes_the_same_request_of_the_same_song(mode: type[SongRequest]) -> None:
    asked = remade(mode, retakes=[[-1, 0.25], [9, 0], [4, 0.5]], use_adg=True, seed=-1)
    told = json.loads(json.dumps(song.recipe(asked), allow_nan=False))
    clip = asked.source_audio
    assert told.pop("mode") == mode.mode and told.pop("seed") == asked.advanced.seed
    digest = hashlib.sha256(clip.samples.T.astype("<f4").tobytes()).hexdigest()  # interleaved, as in a WAV file
    facts = {"samples": 48_000, "seconds": 1.0, "sha256": digest}
    assert told.pop("source_audio") == facts | {"file": {"format": "FLAC"}}
    assert told.pop("reference_audio", None) is None
    assert mode.parse({**told.pop("advanced"), **told.pop("lm"), **told, "source_audio": clip}) == asked


def test_a_piece_of_a_recording_is_its_own() -> None:
    clip = remade(Cover).source_audio
    piece = clip.cut(100, 200)
    assert np.array_equal(piece.samples, clip.samples[:, 100:200]) and piece.file == clip.file
    assert not np.shares_memory(piece.samples, clip.samples), "a worker is sent the piece alone"
    assert (piece.seconds, clip.seconds) == (100 / 48_000, 1)


def test_a_request_of_no_mode_can_be_neither_sung_nor_measured() -> None:
    for name in ("sung", "seconds"):
        with pytest.raises(NotImplementedError):
            getattr(SongRequest.parse({}), name)
    plain = ask(duration_s=12)
    assert (plain.task, plain.seconds, plain.lead, plain.passes, plain.idle) == ("text2music", 12, 0, 1, {})
    assert plain.heard() == (plain, 0) and plain.size == 12 * 48_000
