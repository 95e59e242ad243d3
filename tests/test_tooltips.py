"""The words beside each control: there for every control, with the range from the table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from afters import AFTERS
from drafts import DRAFTS
from fields import Knob
from lyrics import LYRICS
from remakes import MODES
from song import controls
from tooltips import STACK, TIPS, VARIANCE, tip

CONTROLS = {
    (mode.mode, name): control
    for mode in (*MODES, *DRAFTS, *LYRICS, *AFTERS)
    for name, control in controls(mode).items()
}


@dataclass
class Bare:
    """A control whose range has no words."""

    name: str
    range: str = ""


def test_each_control_of_each_mode_has_a_tip_and_no_tip_is_left_over() -> None:
    assert set(TIPS) == {name for _, name in CONTROLS}


@pytest.mark.parametrize("control", CONTROLS.values(), ids=map(" ".join, CONTROLS))
def test_a_tip_is_sentences_then_the_range(control: Knob) -> None:
    words = TIPS[control.name]
    assert words[0].isupper() or words.startswith(("ode", "-1", "conservative", "strict", "48 kHz"))
    assert words.endswith(".") and control.range
    assert tip(control) == f"{words} ({control.range})"


@pytest.mark.parametrize("words", [VARIANCE, STACK])
def test_what_is_no_control_of_a_mode_has_words_too(words: str) -> None:
    assert words[0].isupper() and words.endswith(".")


@pytest.mark.parametrize(
    "mode, name, words",
    [
        ("generate", "inference_steps", "(8 to 80)"),
        ("generate", "seed", "(-1 to 4294967295)"),
        ("generate", "shift", "(0.5 to 3)"),
        ("generate", "bpm", "(30 to 300, empty = auto)"),
        ("generate", "timesignature", "(empty, 2, 3, 4, 6)"),
        ("generate", "vocal_language", "(one of the list)"),
        ("generate", "use_adg", "(on or off)"),
        ("generate", "prompt", "(up to 512 characters)"),
        ("generate", "lyrics", "(up to 4,096 characters)"),
        ("generate", "duration_s", "(10 to 600)"),
        ("cover", "source_audio", "(WAV, FLAC, OGG, MP3 or AIFF, 0.5 to 600 s)"),
        ("cover", "reference_audio", "(WAV, FLAC, OGG, MP3 or AIFF, 0.5 to 600 s, empty = none)"),
        ("extend", "lyrics", "(up to 4,096 characters, empty = instrumental)"),
        ("extend", "side", "(after, before)"),
        ("edit", "regions", "(up to 16 pairs)"),
        ("edit", "retakes", "(up to 16 pairs)"),
        ("edit", "repaint_mode", "(conservative, balanced, aggressive)"),
        ("edit", "keep_words", "(on or off)"),
        ("normalise", "target_lufs", "(-9, -14, -16, -23)"),
        ("export", "format", "(mp3, flac, wav16, wav24, wav32, ogg)"),
        ("export", "title", "(up to 120 characters, empty = from the style prompt)"),
        ("export", "fade_in_s", "(0 to 30)"),
        ("export", "sample_rate", "(48000, 44100)"),
    ],
)
def test_the_range_is_in_the_readers_words(mode: str, name: str, words: str) -> None:
    assert tip(CONTROLS[mode, name]).endswith(words)


def test_a_control_without_a_range_shows_its_words_alone() -> None:
    assert tip(Bare("seed")) == TIPS["seed"]
